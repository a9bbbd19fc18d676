//! Slices are started and stopped by systemd, so that it knows them and keeps them.

use std::time::Duration;

use super::{CgroupError, Values, Version, v2};
use crate::dbus::{Bus, BusError, Property, Value};

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// How long one exchange with systemd, the end of its job included, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the slice with these values, or sets them when it runs.
pub(super) fn ensure(unit: &str, version: Version, values: &Values) -> Result<(), CgroupError> {
    let failed = |operation| move |source| CgroupError::Systemd { operation, unit: unit.to_owned(), source };
    if unit.is_empty() {
        return Ok(());
    }
    let mut bus = Bus::connect_system(PATIENCE).map_err(failed("connection"))?;
    let limits = properties(version, values);
    let mut all = accounting(unit);
    all.extend(limits.clone());
    match start(&mut bus, unit, all) {
        Err(BusError::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {
            if limits.is_empty() {
                return Ok(());
            }
            let body = [Value::Str(unit.to_owned()), Value::Bool(true), Value::Properties(limits)];
            bus.call(DESTINATION, PATH, INTERFACE, "SetUnitProperties", &body)
                .map(drop)
                .map_err(failed("SetUnitProperties"))
        }
        other => other.map_err(failed("StartTransientUnit")),
    }
}

/// The unit that stops pods in order when the machine goes down, if there is one: until it is done, systemd stops no scope of a container.
const STOPS_PODS: &str = "rubelet-pods.service";

/// Starts a scope in a slice around a process that is there. Its cgroup is ours to write to (`Delegate`); the values are told to systemd
/// too, which would undo them at its next reload.
pub(super) fn start_scope(
    unit: &str,
    slice: &str,
    pid: u32,
    version: Version,
    values: &Values,
) -> Result<(), CgroupError> {
    let failed = |operation| move |source| CgroupError::Systemd { operation, unit: unit.to_owned(), source };
    let mut bus = Bus::connect_system(PATIENCE).map_err(failed("connection"))?;
    let mut all = vec![
        ("Description", Value::Str(format!("container {unit}"))),
        ("Slice", Value::Str(slice.to_owned())),
        ("Delegate", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        ("Before", Value::StrArray(vec![STOPS_PODS.to_owned()])),
        ("MemoryAccounting", Value::Bool(true)),
        ("CPUAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
        ("PIDs", Value::U32Array(vec![pid])),
    ];
    all.extend(properties(version, values));
    start(&mut bus, unit, all).map_err(failed("StartTransientUnit"))
}

/// Tells systemd new values of a scope or slice that runs.
pub(super) fn set(unit: &str, version: Version, values: &Values) -> Result<(), CgroupError> {
    let failed = |operation| move |source| CgroupError::Systemd { operation, unit: unit.to_owned(), source };
    let limits = properties(version, values);
    if limits.is_empty() {
        return Ok(());
    }
    let mut bus = Bus::connect_system(PATIENCE).map_err(failed("connection"))?;
    let body = [Value::Str(unit.to_owned()), Value::Bool(true), Value::Properties(limits)];
    bus.call(DESTINATION, PATH, INTERFACE, "SetUnitProperties", &body).map(drop).map_err(failed("SetUnitProperties"))
}

fn start(bus: &mut Bus, unit: &str, properties: Vec<Property>) -> Result<(), BusError> {
    bus.watch_signal(INTERFACE, "JobRemoved")?;
    bus.call(DESTINATION, PATH, INTERFACE, "Subscribe", &[]).map(drop).or_else(|e| match e {
        BusError::Refused { .. } => Ok(()),
        other => Err(other),
    })?;
    let body = [
        Value::Str(unit.to_owned()),
        Value::Str("replace".to_owned()),
        Value::Properties(properties),
        Value::NoAuxiliaryUnits,
    ];
    let reply = bus.call(DESTINATION, PATH, INTERFACE, "StartTransientUnit", &body)?;
    await_job(bus, &reply.first_text()?)
}

/// Stops the slice. One that systemd does not know is no error.
pub(super) fn stop(unit: &str) -> Result<(), CgroupError> {
    let failed = |operation| move |source| CgroupError::Systemd { operation, unit: unit.to_owned(), source };
    let mut bus = Bus::connect_system(PATIENCE).map_err(failed("connection"))?;
    let mut end = || -> Result<(), BusError> {
        bus.watch_signal(INTERFACE, "JobRemoved")?;
        let body = [Value::Str(unit.to_owned()), Value::Str("replace".to_owned())];
        let reply = bus.call(DESTINATION, PATH, INTERFACE, "StopUnit", &body)?;
        await_job(&mut bus, &reply.first_text()?)
    };
    match end() {
        Err(BusError::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
        other => other.map_err(failed("StopUnit")),
    }
}

/// `JobRemoved(u id, o job, s unit, s result)` for our job; any result but `done` is an error.
fn await_job(bus: &mut Bus, job: &str) -> Result<(), BusError> {
    let signal =
        bus.wait_signal("JobRemoved", |m| m.body_texts("uoss").is_ok_and(|t| t.first().is_some_and(|j| j == job)))?;
    match signal.body_texts("uoss")?.get(2).map(String::as_str) {
        Some("done") => Ok(()),
        other => Err(BusError::Job { result: other.unwrap_or("unknown").to_owned() }),
    }
}

/// Accounting on, no default dependencies, wanted by the slice above.
fn accounting(unit: &str) -> Vec<Property> {
    let mut out = vec![
        ("Description", Value::Str(format!("pods in {unit}"))),
        ("DefaultDependencies", Value::Bool(false)),
        ("MemoryAccounting", Value::Bool(true)),
        ("CPUAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
    ];
    if let Some((parent, _)) = unit.trim_end_matches(".slice").rsplit_once('-') {
        out.push(("Wants", Value::StrArray(vec![format!("{parent}.slice")])));
    }
    out
}

/// The values in systemd's words, so that a `daemon-reload` does not undo what the files say.
fn properties(version: Version, values: &Values) -> Vec<Property> {
    let or_infinity = |v: i64| Value::U64(u64::try_from(v).unwrap_or(u64::MAX));
    let mut out = Vec::new();
    let shares = match version {
        Version::V1 => values.cpu_shares.map(|shares| ("CPUShares", shares)),
        Version::V2 => v2::weight_of(values).map(|weight| ("CPUWeight", weight)),
    };
    out.extend(shares.map(|(name, value)| (name, Value::U64(value))));
    if let Some(quota) = values.cpu_quota_us {
        let period = values.cpu_period_us.unwrap_or(100_000).max(1);
        // systemd counts in whole hundredths of a CPU and rounds down; we round up, as upstream does.
        let per_sec = u64::try_from(quota).map_or(u64::MAX, |q| (q * 1_000_000 / period).div_ceil(10_000) * 10_000);
        out.push(("CPUQuotaPerSecUSec", Value::U64(per_sec)));
        // systemd's own default; older ones do not know the property.
        if period != 100_000 {
            out.push(("CPUQuotaPeriodUSec", Value::U64(period)));
        }
    }
    if let Some(limit) = values.memory_limit_bytes {
        out.push(match version {
            Version::V1 => ("MemoryLimit", or_infinity(limit)),
            Version::V2 => ("MemoryMax", or_infinity(limit)),
        });
    }
    if let Some(max) = values.pids_max {
        out.push(("TasksMax", if max > 0 { or_infinity(max) } else { Value::U64(u64::MAX) }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_wanted_by_the_one_above() {
        let wants = |unit| accounting(unit).into_iter().find(|p| p.0 == "Wants").map(|p| p.1);
        assert_eq!(wants("kubepods.slice"), None);
        assert_eq!(
            wants("kubepods-burstable-poda_b.slice"),
            Some(Value::StrArray(vec!["kubepods-burstable.slice".to_owned()]))
        );
    }

    #[test]
    fn values_in_systemds_words() {
        let values = Values {
            cpu_shares: Some(768),
            cpu_quota_us: Some(75_500),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(4096),
            pids_max: Some(-1),
            ..Values::default()
        };
        let names = |version| -> Vec<(&str, Value)> { properties(version, &values) };
        assert_eq!(
            names(Version::V2),
            [
                ("CPUWeight", Value::U64(30)),
                ("CPUQuotaPerSecUSec", Value::U64(760_000)),
                ("MemoryMax", Value::U64(4096)),
                ("TasksMax", Value::U64(u64::MAX)),
            ]
        );
        assert_eq!(names(Version::V1)[0], ("CPUShares", Value::U64(768)));
    }
}
