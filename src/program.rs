// Shared by `tokengrid` and `tokengrid-torch`: everything except the module `torch` and what only that one uses.

mod args;
mod commands;
mod environment;
mod exit;
mod files;
mod launcher;
mod log;
mod panics;
mod printable;
mod signals;
mod terminal;
mod threads;

use clap::FromArgMatches;

fn main() {
    // Signals are held until the handler is installed, which may happen in the program that replaces this one.
    signals::hold();
    panics::install();
    let typed = args::command().try_get_matches().and_then(|words| args::Cli::from_arg_matches(&words));
    let is_handed_over = matches!(&typed, Ok(cli) if commands::needs_torch(&cli.command) && !torch::IS_HERE);
    if !is_handed_over {
        signals::install();
    }
    let code = match typed {
        _ if signals::cancelled() => {
            if !signals::is_part() {
                eprintln!("tokengrid: {}", signals::Stopped);
            }
            signals::exit_code()
        }
        Ok(_) if is_handed_over => {
            eprintln!("tokengrid: {:#}", torch::hand_over());
            1
        }
        Ok(cli) => run(cli),
        Err(refusal) => refuse(&refusal),
    };
    exit::leave(code)
}

fn run(mut cli: args::Cli) -> u8 {
    output::expect_json(cli.global.json);
    if let Err(usage) = environment::check() {
        return exit::code_of(|| Err(usage.into()));
    }
    log::init(&cli.global);
    torch::begin();
    cli.global.threads = threads::choose(cli.global.threads);
    tokengrid_cache::cancel_with(signals::flag());
    tokengrid_store::cancel_with(signals::flag());
    tokengrid_store::stage_in(cli.global.stage_dir.clone(), cli.global.stage_size);
    tokengrid_store::on_stage(log::staging);
    if let Some(requests) = cli.global.requests {
        tokengrid_store::allow_in_flight(requests.into());
    }
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::End);
    if commands::is_job(&cli.command) {
        log::heading(&cli.global);
    }
    if commands::keeps_work(&cli.command) {
        signals::keep_work();
    }
    exit::code_of(|| commands::run(cli))
}

/// Prints the error in the arguments, or the requested help.
fn refuse(refusal: &clap::Error) -> u8 {
    let _ = refusal.print();
    let code = refusal.exit_code() as u8;
    if code != 0 {
        output::expect_json(std::env::args_os().any(|word| word == "--json"));
        let text = refusal.to_string();
        let first = text.lines().next().unwrap_or_default();
        output::print_failure(first.trim_start_matches("error: "), code);
    }
    code
}
