//! Completions and manual pages, from the command line's one definition.

use std::io::Write;

use anyhow::Context;

use crate::Outcome;
use crate::cli::{self, Completions, Man};

/// `dari completions SHELL`.
pub fn completions(arguments: &Completions) -> anyhow::Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli::definition(), "dari", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Outcome::Done)
}

/// `dari man`.
pub fn man(arguments: &Man) -> anyhow::Result<Outcome> {
    match &arguments.output {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(cli::definition(), folder)
                .with_context(|| folder.display().to_string())?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(cli::definition()).render(&mut text)?;
            std::io::stdout().lock().write_all(&text)?;
        }
    }
    Ok(Outcome::Done)
}
