//! Logs: to standard error, through tracing-subscriber. `RUST_LOG` says which lines there are, `info` and above if it is silent.

use std::io::{self, IsTerminal};

use shoal::config::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::cli::Failure;

/// Starts logging; called once, before anything logs.
pub fn start(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives)
            .map_err(|error| Failure::told(vec![format!("RUST_LOG: \"{directives}\": {error}")]))?,
        Err(_) => EnvFilter::new("info"),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
