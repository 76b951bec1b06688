//! The command line: one file per command. Data on standard output, messages on standard error.

/// As the standard library's, where nobody may be listening any more.
macro_rules! eprintln {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}

mod backfill;
mod capture;
mod completions;
mod config;
mod demo;
mod dismiss;
mod doctor;
mod estimate;
mod jobs;
mod list;
mod migrate;
mod openapi;
mod output;
mod progress;
mod resync;
mod serve;
mod settings;
mod signals;
mod unmappable;
mod verify;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use output::Refusal;

use crate::config::{Config, ConfigError, KEYS, is_variable};
use crate::history::{self, HistoryError};
use crate::store::migrate::MigrateError;
use crate::store::{PoolSettings, Store, StoreError, is_missing_file};

/// "Recently used" lists that stay instant and exact, however long the history behind them grows.
#[derive(Debug, Parser)]
#[command(name = "recents", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file [default: recents.toml where it exists]
    #[arg(long, global = true, value_name = "FILE", env = "RECENTS_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Commands,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 drift found, \
                          4 stopped early and resumable.";

#[derive(Debug, Subcommand)]
enum Commands {
    /// Serve the lists over HTTP
    Serve,
    /// Show the whole way on a sample history, embedded, and serve it
    Demo(demo::DemoArgs),
    /// Tell what the history's question costs today and what it would cost; only reads
    Estimate(Json),
    /// Bring the database's schema up to date
    Migrate,
    /// Seed the table from the history, or from a file
    Backfill(backfill::BackfillArgs),
    /// Follow the history: install, look at or remove the triggers that note its changes
    #[command(subcommand)]
    Capture(capture::CaptureCommand),
    /// Make the table what the history says, beside everybody who writes
    Resync(resync::ResyncArgs),
    /// Prove that the table agrees with the history
    ///
    /// The exit code is 3 where it does not. What differs is looked at again when the captured changes of that
    /// moment are worked off; where none of them goes for three seconds, those rows are told as waiting.
    Verify(verify::VerifyArgs),
    /// Print one list, as the table has it
    List(list::ListArgs),
    /// Remove an item from a list, or all of a list, until its next use
    Dismiss(dismiss::DismissArgs),
    /// Remove every trace of a user, in all workspaces
    Forget(dismiss::ForgetArgs),
    /// See or change what can change while servers run
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Look at everything that can be wrong, and say what mends it; changes nothing
    Doctor(Json),
    /// Check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the description of the HTTP API
    Openapi,
    /// Print a shell's completions
    Completions(completions::CompletionsArgs),
}

/// Machine-readable output, for every command that prints data.
#[derive(Debug, Clone, Copy, Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The configuration or the usage is wrong: exit code 2.
    Usage(String),
    /// It failed: exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
}

impl Failure {
    fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// A database that was made wrong for the table is one to name another of.
    fn from_store(error: StoreError) -> Self {
        match error {
            StoreError::Schema(error) if matches!(*error, MigrateError::Encoding { .. }) => {
                Self::Usage(error.to_string())
            }
            error => Self::failed(error),
        }
    }

    /// A mapping query that is refused, or does not fit its database, is a configuration to mend.
    fn from_history(error: HistoryError) -> Self {
        match &error {
            HistoryError::Misfit { problem, .. } if problem.contains("permission denied") => {
                Self::Usage(format!("{error}{ASK_DOCTOR}"))
            }
            HistoryError::Refused(_) | HistoryError::Misfit { .. } => {
                Self::Usage(error.to_string())
            }
            _ => Self::failed(error),
        }
    }
}

/// Behind an error of a role that lacks a right.
const ASK_DOCTOR: &str = "; `recents doctor` says which grant is missing";

/// Behind one of a database that may only be read.
const READ_ONLY: &str = "; only a database that can be written to will do: no standby, no role with \
                         default_transaction_read_only, and of SQLite a file and a directory that may be written";

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// All done: exit code 0.
    Complete,
    /// The table differed from the history: exit code 3.
    Drift,
    /// Stopped early; the same command goes on: exit code 4.
    Resumable,
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        match done {
            Done::Complete => Self::SUCCESS,
            Done::Drift => Self::from(3),
            Done::Resumable => Self::from(4),
        }
    }
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    match dispatch(&matches) {
        Ok(done) => done.into(),
        Err(Failure::Usage(message)) => {
            eprintln!("recents: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) if output::is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            let told = output::chain(&*error);
            let mended_by = match output::refusal(&*error) {
                Some(Refusal::LacksARight) if !told.contains("grant ") => ASK_DOCTOR,
                Some(Refusal::ReadOnly) => READ_ONLY,
                _ => "",
            };
            eprintln!("recents: {told}{mended_by}");
            ExitCode::FAILURE
        }
    }
}

/// The command with a flag for every key of the configuration.
fn command() -> Command {
    Cli::command().args(KEYS.iter().map(|key| {
        Arg::new(key.name)
            .long(key.name.replace(['.', '_'], "-"))
            .value_name("VALUE")
            .global(true)
            .hide_short_help(true)
            .help_heading("Configuration")
            .help(match key.default {
                Some(default) => {
                    format!(
                        "{} [file: {}] [env: {}] [default: {default}]",
                        key.about,
                        key.name,
                        key.variable()
                    )
                }
                None => format!(
                    "{} [file: {}] [env: {}]",
                    key.about,
                    key.name,
                    key.variable()
                ),
            })
    }))
}

fn dispatch(matches: &ArgMatches) -> Result<Done, Failure> {
    let cli = Cli::from_arg_matches(matches).map_err(|error| Failure::Usage(error.to_string()))?;
    let written = || load(matches, &cli);
    let configuration = || judged(written()?);
    match &cli.command {
        Commands::Serve => serve::run(&configuration()?),
        Commands::Demo(args) => demo::run(args, flags(matches)),
        Commands::Estimate(args) => wait_for(estimate::run(&configuration()?, args)),
        Commands::Migrate => wait_for(migrate::run(&configuration()?)),
        Commands::Backfill(args) => wait_for(backfill::run(&configuration()?, args)),
        Commands::Capture(command) if command.needs_mapping() => {
            wait_for(capture::run(&configuration()?, command))
        }
        Commands::Capture(command) => wait_for(capture::run(&written()?, command)),
        Commands::Resync(args) => wait_for(resync::run(&configuration()?, args)),
        Commands::Verify(args) => wait_for(verify::run(&configuration()?, args)),
        Commands::List(args) => wait_for(list::run(&configuration()?, args)),
        Commands::Dismiss(args) => wait_for(dismiss::run(&configuration()?, args)),
        Commands::Forget(args) => wait_for(dismiss::forget(&configuration()?, args)),
        Commands::Settings(command) => wait_for(settings::run(&configuration()?, command)),
        Commands::Doctor(args) => wait_for(doctor::run(&written()?, args)),
        Commands::Config(config::ConfigCommand::Check(json)) => {
            config::check(&configuration()?, json.json)
        }
        Commands::Openapi => openapi::run(),
        Commands::Completions(args) => completions::run(args, command()),
    }
}

fn load(matches: &ArgMatches, cli: &Cli) -> Result<Config, Failure> {
    let environment = environment().map_err(usage)?;
    let config = Config::load(&flags(matches), &environment, cli.config.as_deref());
    let config = config.map_err(usage)?;
    // A misspelt one has a command work on another database. These two tell it their own way.
    if !matches!(cli.command, Commands::Serve | Commands::Doctor(_)) {
        for name in &config.unknown_environment {
            eprintln!("{name} is not a key of the configuration; it has no effect");
        }
    }
    Ok(config)
}

/// The environment, as far as it is text. One of our variables that is not text must not go unseen: a service
/// would start on another database than `DATABASE_URL` names.
fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut environment = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => drop(environment.insert(name, value)),
            Err(_) if is_variable(&name) => return Err(ConfigError::new(name, "is not UTF-8")),
            Err(_) => {}
        }
    }
    Ok(environment)
}

/// A configuration whose mapping query is not refused.
fn judged(config: Config) -> Result<Config, Failure> {
    if let Some(history) = &config.history {
        history::judge(history).map_err(Failure::from_history)?;
    }
    Ok(config)
}

/// The configuration's keys that were given as flags.
fn flags(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    // Global flags stand at whichever level they were given.
    let mut level = matches;
    while let Some((_, deeper)) = level.subcommand() {
        level = deeper;
    }
    KEYS.iter()
        .filter_map(|key| Some((key.name, level.get_one::<String>(key.name)?.clone())))
        .collect()
}

fn usage(error: ConfigError) -> Failure {
    Failure::Usage(error.to_string())
}

/// Runs a command's future; one thread serves the pool's and the sources' tasks.
fn wait_for(work: impl Future<Output = Result<Done, Failure>>) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // A thread that reads a pipe cannot be stopped; the process need not wait for its next byte.
    runtime.shutdown_background();
    done
}

/// As [`open`], for commands that make no database where there is none.
async fn open_existing(config: &Config) -> Result<Store, Failure> {
    if is_missing_file(&config.database_url) {
        let (url, _) = config.explain_store();
        return Err(Failure::failed(format!(
            "there is no database at {url}; `recents migrate` makes one"
        )));
    }
    let store = open(config)?;
    let checked = store.check_schema().await;
    checked.map_err(|error| out_of_reach(config, error))?;
    Ok(store)
}

/// The store of the configuration, with the schema of this program: brought up to date, unless that is
/// for others to do, or nothing may be written.
async fn migrated(config: &Config, only_reads: bool) -> Result<Store, Failure> {
    if only_reads || !config.migrate_on_start {
        return open_existing(config).await;
    }
    let store = open(config)?;
    let applied = store.migrate().await;
    match applied.map_err(|error| out_of_reach(config, error))? {
        0 => {}
        n => eprintln!("applied {n} migration(s)"),
    }
    Ok(store)
}

/// A store that does not answer is told with where it should be.
fn out_of_reach(config: &Config, error: StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) if error.is_statement_timeout() => Failure::failed(error),
        StoreError::Unavailable(error) => {
            let (url, origin) = config.explain_store();
            let error = no_answer(&error);
            Failure::failed(format!(
                "the database at {url} (from {origin}) is out of reach: {error}"
            ))
        }
        error => Failure::from_store(error),
    }
}

/// Why a database did not answer; the pool only says that it tried for a while.
fn no_answer(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "nothing answers there".into(),
        error => output::chain(error),
    }
}

/// The store of the configuration.
fn open(config: &Config) -> Result<Store, Failure> {
    open_at("database_url", &config.database_url, config)
}

/// The database at the URL that a key of the configuration gives.
fn open_at(key: &'static str, url: &str, config: &Config) -> Result<Store, Failure> {
    let settings = PoolSettings {
        size: config.pool_size,
        statement_timeout: config.statement_timeout,
        behind_pooler: config.transaction_pooler,
    };
    Store::open(url, settings).map_err(|error| usage(ConfigError::new(key, error)))
}
