//! A whole program around a stack: starts it on a folder, says where it serves, waits for Ctrl-C and stops it.
//!
//! `cargo run -p activity-devstack --example stack -- DATA_DIR [--free-ports] [--three-brokers]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use activity_devstack::{Ports, Stack, StackError, StackOptions, Stderr, run_hidden_verb};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // First of all, before there are threads: this very program also runs as the services' first moment.
    if let Some(code) = run_hidden_verb(&args) {
        return code;
    }
    let Some(data_dir) = args.get(1).map(PathBuf::from) else {
        eprintln!("usage: stack DATA_DIR [--free-ports] [--three-brokers]");
        return ExitCode::from(2);
    };
    let ports = if args.iter().any(|arg| arg == "--free-ports") {
        Ports::free()
    } else {
        Ports::default()
    };
    let brokers = args.iter().any(|arg| arg == "--three-brokers").then_some(3);
    match run(data_dir, ports, brokers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(data_dir: PathBuf, ports: Ports, brokers: Option<u8>) -> Result<(), StackError> {
    let executable = std::env::current_exe().unwrap_or_default();
    let options = StackOptions {
        data_dir,
        cache_dir: None,
        executable,
        ports,
        brokers,
        security: None,
        prometheus: None,
        gives_way: true,
    };
    let began = Instant::now();
    let mut stack = tokio::select! {
        started = Stack::start(options, Arc::new(Stderr::default())) => started?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    let seconds = began.elapsed().as_secs_f64();
    println!("{:?}", stack.endpoints());
    for service in stack.services() {
        println!(
            "{service:<10} process {}",
            stack.process_id(service).unwrap_or_default()
        );
    }
    println!("READY after {seconds:.1} s");
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            (died, _) = stack.supervise() => {
                eprintln!("{died} died, see {}; starting it again", stack.log(died).display());
                stack.restart(died).await?;
            }
        }
    }
    let began = Instant::now();
    stack.stop().await?;
    println!("stopped in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
