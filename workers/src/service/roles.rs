//! From the roles and settings of a process to what its engine does and which schedules there are.

use std::time::Duration;

use clap::ValueEnum;
use engine::{EngineConfig, Queue, ScheduleDefault};
use workflows::schedules::NIGHTLY_DRILL;

use crate::config::{DrillChoice, Role, ServiceArgs};

/// Every process registers, in whatever role; what it does beyond that, its roles say.
pub(super) fn engine_config(args: &ServiceArgs) -> EngineConfig {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let default = EngineConfig::default();
    let named = |role: &Role| role.to_possible_value().map(|value| value.get_name().to_owned());
    // Who claims so many at once has room for them.
    let most = |queue| args.claims.iter().find(|(of, _)| *of == queue).map_or(0, |(_, most)| *most);
    EngineConfig {
        host: host.unwrap_or(default.host),
        version: env!("CARGO_PKG_VERSION").into(),
        // One more than cores: while one step waits for the disk to keep its chunk, another cuts.
        control_slots: default.control_slots.max(most(Queue::Control)),
        deliver_slots: default.deliver_slots.max(most(Queue::Deliver)),
        cpu_slots: (default.cpu_slots + 1).max(most(Queue::Cpu)),
        io_slots: default.io_slots.max(most(Queue::Io)),
        claims: args.claims.iter().copied().collect(),
        roles: Role::value_variants().iter().filter(|role| args.has(**role)).filter_map(named).collect(),
        queues: Queue::ALL.iter().copied().filter(|queue| args.has(role_of(*queue))).collect(),
        fires: args.has(Role::Scheduler),
        figures_interval: Duration::from_secs(args.figures_seconds),
        ..default
    }
}

fn role_of(queue: Queue) -> Role {
    match queue {
        Queue::Control | Queue::Io | Queue::Cpu => Role::Worker,
        Queue::Deliver => Role::Deliver,
    }
}

/// The schedules that the program comes with, as the settings change them; that of the `full` profile where somebody can read it.
pub(super) fn schedules(args: &ServiceArgs, full_profile: bool) -> Vec<ScheduleDefault> {
    let mut defaults = workflows::schedules::defaults();
    defaults.retain(|default| full_profile || default.name != workflows::schedules::FULL_PROFILE);
    let drills = args.drill.drill != DrillChoice::Off;
    for default in &mut defaults {
        let set = args.schedules.schedules.iter().rev().find(|setting| setting.name == default.name);
        match set.map(|setting| &setting.cron) {
            Some(Some(cron)) => default.cron.clone_from(cron),
            Some(None) => default.off = Some("switched off by --schedule".into()),
            None if args.schedules.no_schedules => default.off = Some("switched off by --no-schedules".into()),
            None if !drills && default.name == NIGHTLY_DRILL => default.off = Some("switched off by --drill off".into()),
            None => {}
        }
    }
    defaults
}
