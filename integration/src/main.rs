//! `cargo integration COMMAND`: every check of Shoal, a file a command.
//!
//! `cargo integration test` runs all of them and is what `.ci/run` calls. The others run one part, for the day's work.
#![forbid(unsafe_code)]

mod checks;
mod client;
mod compare;
mod compose;
mod crowd;
mod divide;
mod engine;
mod floor;
mod hostile;
mod idle;
mod load;
mod models;
mod parallel;
mod peers;
mod plot;
mod random;
mod release;
mod report;
mod running;
mod samba;
mod scratch;
mod server;
mod smbclient;
mod storm;
mod test;
mod torture;
mod tree;
mod usage;
mod witness;

use clap::{Parser, Subcommand};

use crate::checks::Checks;

/// Every check of Shoal.
#[derive(Parser)]
#[command(name = "cargo integration", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All checks: formatting, lints, unit, model and wire tests, smbclient, smbtorture
    Test(test::Options),
    /// The shuttle models and the seeded defects that they must catch
    Models,
    /// smbtorture's tests, by suite or by name, against expectations
    Torture(torture::Options),
    /// smbclient in every dialect and protection, on a directory and on a memory share
    Smbclient(smbclient::Options),
    /// A tree of thousands of files up and down with smbclient, compared by hash
    Tree(tree::Options),
    /// Many clients create, rename and remove in one directory; the end state is checked
    Crowd(crowd::Options),
    /// A load of many clients in one mix, with its rate, latencies and errors
    Load(load::command::Options),
    /// A storm of mkdir, rename and remove over nested directories of a real disk; the end state is checked
    Storm(storm::Options),
    /// Creates, renames and removals of 256 names at once in one directory: nobody waits for anybody
    Parallel(parallel::Options),
    /// Thousands of clients that are logged in and do nothing: what each costs, and that all are served
    Idle(idle::Options),
    /// Mutated messages before and after login; the server must stay up and flat in memory
    Hostile(hostile::Options),
    /// The server's program as it is shipped: built with a profile of itself at work
    Release,
    /// A race against Samba, or any server by address: rates, processor time and memory
    Compare(compare::Options),
    /// A program that does the least that each operation takes, for `compare` to race against
    #[command(hide = true)]
    Floor(floor::Options),
    /// The containers of docker-compose.yml: brought up, checked from the clients' side, cut, killed, taken down
    Compose(compose::Options),
    /// Installs what the checks need, or says what to install
    Peers,
    /// A part in the check of the containers, inside one
    #[command(hide = true)]
    Witness(witness::Options),
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let mut checks = Checks::new();
    match arguments.command {
        Command::Test(options) => test::run(&mut checks, &options),
        Command::Models => models::run(&mut checks),
        Command::Torture(options) => torture::run(&mut checks, &options),
        Command::Smbclient(options) => smbclient::run(&mut checks, &options),
        Command::Tree(options) => tree::run(&mut checks, &options),
        Command::Crowd(options) => crowd::run(&mut checks, &options),
        Command::Load(options) => load::command::run(&mut checks, &options),
        Command::Storm(options) => storm::run(&mut checks, &options),
        Command::Parallel(options) => parallel::run(&mut checks, &options),
        Command::Idle(options) => idle::run(&mut checks, &options),
        Command::Hostile(options) => hostile::run(&mut checks, &options),
        Command::Release => release::run(&mut checks),
        Command::Compare(options) => compare::run(&mut checks, &options),
        Command::Floor(options) => return floor::run(&options),
        Command::Compose(options) => compose::run(&mut checks, &options),
        Command::Peers => peers::run(&mut checks),
        Command::Witness(options) => witness::run(&mut checks, &options),
    }
    checks.finish()
}
