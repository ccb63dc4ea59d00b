//! `cargo integration models`: the shuttle models of the lookup cache, and the seeded defects that they must catch.

use std::process::{Command, Stdio};

use crate::checks::{Checks, Failure};
use crate::server::{target_directory, workspace};

/// `cargo integration models`.
pub fn run(checks: &mut Checks) {
    checks.check("models and seeded defects (shuttle)", models);
}

/// Builds vfs with `--cfg shuttle` in a target directory of its own (the flag would otherwise rebuild everything) and
/// runs its models. The models print `caught NAME after N schedules` for each seeded defect and fail on a miss.
fn models() -> Result<(), Failure> {
    let status = Command::new("cargo")
        .args([
            "test",
            "--quiet",
            "--package",
            "shoal-vfs",
            "--test",
            "models",
            "--release",
            "--",
            "--nocapture",
        ])
        .env("RUSTFLAGS", "--cfg shuttle")
        // They are not measured: linking them as long as the server would gain nothing.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_TARGET_DIR", target_directory().join("shuttle"))
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo test --test models: {status}")) }
}
