//! Runs a file of foreign packet vectors: `vectors FILE [--kernel]`. Exit codes: 0 all is as it should be, 1 it is not, 2 wrongly called.
#![forbid(unsafe_code)]

use std::{env, path::Path, process::ExitCode};
use tests::vectors;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (file, in_kernel) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [file] if !file.starts_with('-') => (file, false),
        [file, "--kernel"] | ["--kernel", file] => (file, true),
        _ => {
            eprintln!(
                "usage: vectors FILE [--kernel]\n\n  --kernel  run each frame in the kernel as well (needs root)"
            );
            return ExitCode::from(2);
        }
    };
    match vectors::run(Path::new(file), in_kernel) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(!report.is_good()))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
