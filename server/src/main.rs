//! The program `shoal`: an SMB2/3 file server, and what keeps one.
#![forbid(unsafe_code)]

mod cli;
mod log;
mod notify;
mod ping;
mod remote;
mod serve;
mod user;

use std::process::ExitCode;

use clap::Parser;
use shoal::admin::Request;

use cli::{Arguments, Command, Failure};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let Some(command) = arguments.command.take() else {
        return serve::demo(arguments.log_format());
    };
    match command {
        Command::Serve(configuration) => serve::serve(configuration.with_log_format(&arguments)),
        Command::Check(configuration) => cli::check(&configuration.with_log_format(&arguments)),
        Command::User(change) => user::run(&change),
        Command::Status { json, admin } => remote::status(&admin, json),
        Command::Reload(admin) => remote::order(&admin, &Request::Reload),
        Command::Stop(admin) => remote::order(&admin, &Request::Stop),
        Command::CloseSession { id, admin } => remote::order(&admin, &Request::CloseSession { id }),
        Command::Ping { address } => cli::ping(&address),
    }
}
