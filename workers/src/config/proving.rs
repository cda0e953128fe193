//! Settings of what is published beside chunks, and of how it is proved.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use snapshot::drill::Mode;
use workflows::services::ArchiveMode;

/// Which archives are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArchiveChoice {
    /// Each snapshot's.
    Every,
    /// The first of each week, which begins on Monday (UTC).
    Weekly,
    /// None.
    #[value(name = "on_request", alias = "on-request")]
    OnRequest,
}

impl ArchiveChoice {
    /// As workflows say it.
    pub fn mode(self) -> ArchiveMode {
        match self {
            Self::Every => ArchiveMode::Every,
            Self::Weekly => ArchiveMode::Weekly,
            Self::OnRequest => ArchiveMode::OnRequest,
        }
    }
}

/// How a snapshot is proved before readers are sent to it.
#[derive(Debug, Clone, Args)]
pub struct DrillArgs {
    /// What of a snapshot is restored and proved before `latest` moves to it, and each night of a random older one: all of it by
    /// stock tools and by `snapshots restore` (takes the disk of a second database and of the archive), a sample of it by the
    /// latter alone, or nothing.
    #[arg(long, env = "SNAPSHOTS_DRILL", value_enum, default_value_t = DrillChoice::Full)]
    pub drill: DrillChoice,
    /// Directory for what a drill downloads, and for its private PostgreSQL; by default in the data directory.
    #[arg(long, env = "SNAPSHOTS_DRILL_DIR", value_name = "DIR")]
    pub drill_dir: Option<PathBuf>,
}

/// How much a drill restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrillChoice {
    /// Everything, twice.
    Full,
    /// The schema, the newest range of heights and a tenth of the others.
    Sample,
    /// Nothing; snapshots are promoted unproved, and status says so.
    Off,
}

impl DrillChoice {
    /// As records say it.
    pub fn mode(self) -> Mode {
        match self {
            Self::Full => Mode::Full,
            Self::Sample => Mode::Sample,
            Self::Off => Mode::Off,
        }
    }
}
