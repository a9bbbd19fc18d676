//! Family after family: each has all its rows in a row.

use std::io;

use rubelet_api::metrics::{Family, Text};
use rubelet_host::cgroup::usage::{Detail, DeviceIo, Pressures};
use rubelet_host::proc::{self, BlockDevice, Interface};

use super::families::*;
use super::{Disk, Page, Row};

const MICROS: f64 = 1e6;
const NANOS: f64 = 1e9;
const MILLIS: f64 = 1e3;

/// Heads a family when its first sample comes.
struct Told<'t, 'w, 'f> {
    text: &'t mut Text<'w>,
    family: &'f Family,
    has_head: bool,
}

impl Told<'_, '_, '_> {
    fn sample(&mut self, row: &Row, own: &[(&str, &str)], value: f64, is_timed: bool) -> io::Result<()> {
        if !self.has_head {
            self.has_head = true;
            self.text.head(self.family)?;
        }
        self.text.sample_of(self.family, &row.labels, own, value, is_timed.then_some(row.at_millis))
    }
}

impl Page {
    pub(super) fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        self.machine(text)?;
        self.plain(text)?;
        self.timed(text)?;
        self.faults(text)?;
        self.disks(text)?;
        self.devices(text)?;
        self.network(text)?;
        self.processes(text)
    }

    fn machine(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.head(&VERSION)?;
        text.sample(&VERSION, &["", "", "", &proc::kernel_release(), &proc::os_image()], 1.0)?;
        text.single(&SCRAPE_ERROR, if self.rows.is_empty() { 1.0 } else { 0.0 })?;
        let memory = proc::memory();
        text.single(&MACHINE_ERROR, if memory.is_ok() { 0.0 } else { 1.0 })?;
        let labels = [proc::boot_id().unwrap_or_default(), proc::machine_id(), proc::system_uuid()];
        let labels = [&*labels[0], &labels[1], &labels[2]];
        let (sockets, physical, cores) = proc::topology();
        let mut of = vec![(&CORES, cores as f64), (&PHYSICAL, physical as f64), (&SOCKETS_OF_CPUS, sockets as f64)];
        if let Ok(memory) = memory {
            of.extend([(&MACHINE_MEMORY, memory.total as f64), (&MACHINE_SWAP, memory.swap_total as f64)]);
        }
        for (family, value) in of {
            text.head(family)?;
            text.sample(family, &labels, value)?;
        }
        Ok(())
    }

    /// A family whose value is one number of a cgroup.
    fn each(
        &self,
        text: &mut Text<'_>,
        family: &Family,
        is_timed: bool,
        of: impl Fn(&Detail) -> Option<f64>,
    ) -> io::Result<()> {
        let mut told = Told { text: &mut *text, family, has_head: false };
        for row in &self.rows {
            if let Some(value) = row.detail.as_deref().and_then(&of) {
                told.sample(row, &[], value, is_timed)?;
            }
        }
        Ok(())
    }

    /// What a cgroup is: such samples have no time.
    fn plain(&self, text: &mut Text<'_>) -> io::Result<()> {
        let now = self.now_secs as f64;
        self.each(text, &LAST_SEEN, false, |_| Some(now))?;
        self.each(text, &START, false, |one| one.made_at_secs.map(|secs| secs as f64))?;
        self.each(text, &CPU_PERIOD, false, |one| number(one.cpu_period_us))?;
        self.each(text, &CPU_QUOTA, false, |one| number(one.cpu_quota_us))?;
        self.each(text, &CPU_SHARES, false, |one| number(one.cpu_shares))?;
        let limit = |one: &Detail, value: Option<u64>| one.usage.memory_bytes.map(|_| value.unwrap_or(0) as f64);
        self.each(text, &MEMORY_LIMIT, false, |one| limit(one, one.usage.memory_limit_bytes))?;
        self.each(text, &SWAP_LIMIT, false, |one| limit(one, one.swap_limit_bytes))?;
        self.each(text, &RESERVATION, false, |one| limit(one, one.memory_reservation_bytes))
    }

    fn timed(&self, text: &mut Text<'_>) -> io::Result<()> {
        let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos as f64 / NANOS);
        self.each(text, &CPU_USER, true, |one| seconds(one.usage.cpu_user_nanos))?;
        self.each(text, &CPU_SYSTEM, true, |one| seconds(one.usage.cpu_system_nanos))?;
        let mut told = Told { text: &mut *text, family: &CPU_USAGE, has_head: false };
        for row in &self.rows {
            if let Some(value) = row.detail.as_deref().and_then(|one| seconds(one.usage.cpu_nanos)) {
                told.sample(row, &[("cpu", "total")], value, true)?;
            }
        }
        // cAdvisor: only where there is a quota.
        let throttling = |one: &Detail| one.cpu_quota_us.and(one.usage.throttling);
        self.each(text, &PERIODS, true, |one| throttling(one).map(|t| t.periods as f64))?;
        self.each(text, &THROTTLED, true, |one| throttling(one).map(|t| t.throttled_periods as f64))?;
        self.each(text, &THROTTLED_SECONDS, true, |one| throttling(one).map(|t| t.throttled_nanos as f64 / NANOS))?;
        self.each(text, &BURSTS, true, |one| throttling(one).map(|_| one.burst_periods as f64))?;
        self.each(text, &BURST_SECONDS, true, |one| throttling(one).map(|_| one.burst_nanos as f64 / NANOS))?;
        self.each(text, &CACHE, true, |one| number(one.usage.cache_bytes))?;
        self.each(text, &RSS, true, |one| number(one.usage.rss_bytes))?;
        self.each(text, &KERNEL, true, |one| number(one.kernel_memory_bytes))?;
        self.each(text, &MAPPED, true, |one| number(one.mapped_file_bytes))?;
        // A machine without swap counts none.
        self.each(text, &SWAP, true, |one| one.usage.memory_bytes.map(|_| one.usage.swap_bytes.unwrap_or(0) as f64))?;
        self.each(text, &FAILCNT, true, |one| number(one.memory_limit_hits))?;
        self.each(text, &MEMORY, true, |one| number(one.usage.memory_bytes))?;
        self.each(text, &MEMORY_MAX, true, |one| number(one.memory_max_used_bytes))?;
        self.each(text, &WORKING_SET, true, |one| number(one.usage.working_set_bytes))?;
        self.each(text, &ACTIVE_FILE, true, |one| number(one.active_file_bytes))?;
        self.each(text, &INACTIVE_FILE, true, |one| number(one.inactive_file_bytes))?;
        self.each(text, &OOM, true, |one| number(one.oom_kills))?;
        self.pressure(text)
    }

    fn pressure(&self, text: &mut Text<'_>) -> io::Result<()> {
        type Of = fn(&Pressures) -> Option<u64>;
        let of: [(&Family, Of); 6] = [
            (&CPU_WAITING, |all| all.cpu.map(|one| one.some.total_micros)),
            (&CPU_STALLED, |all| all.cpu.map(|one| one.full.total_micros)),
            (&MEMORY_WAITING, |all| all.memory.map(|one| one.some.total_micros)),
            (&MEMORY_STALLED, |all| all.memory.map(|one| one.full.total_micros)),
            (&IO_WAITING, |all| all.io.map(|one| one.some.total_micros)),
            (&IO_STALLED, |all| all.io.map(|one| one.full.total_micros)),
        ];
        for (family, of) in of {
            self.each(text, family, true, |one| of(&one.pressures).map(|micros| micros as f64 / MICROS))?;
        }
        Ok(())
    }

    fn faults(&self, text: &mut Text<'_>) -> io::Result<()> {
        let mut told = Told { text: &mut *text, family: &FAILURES, has_head: false };
        for row in &self.rows {
            let Some(one) = &row.detail else { continue };
            for (kind, scope, value) in [
                ("pgfault", "container", one.usage.page_faults),
                ("pgfault", "hierarchy", one.all_page_faults),
                ("pgmajfault", "container", one.usage.major_page_faults),
                ("pgmajfault", "hierarchy", one.all_major_page_faults),
            ] {
                let Some(value) = value else { continue };
                told.sample(row, &[("failure_type", kind), ("scope", scope)], value as f64, true)?;
            }
        }
        Ok(())
    }

    /// File systems of the machine, at its own row; writable layers at those of containers.
    fn disks(&self, text: &mut Text<'_>) -> io::Result<()> {
        let root = self.rows.iter().find(|row| row.is_root);
        let at_root = || root.into_iter().flat_map(|root| self.disks.iter().map(move |disk| (root, disk)));
        type Of = fn(&Disk) -> u64;
        let of: [(&Family, Of); 3] = [
            (&INODES_FREE, |disk| disk.fs.inodes_free),
            (&INODES, |disk| disk.fs.inodes),
            (&FS_LIMIT, |disk| disk.fs.capacity_bytes),
        ];
        for (family, of) in of {
            let mut told = Told { text: &mut *text, family, has_head: false };
            for (root, disk) in at_root() {
                told.sample(root, &[("device", &*disk.name)], of(disk) as f64, true)?;
            }
        }
        let mut told = Told { text: &mut *text, family: &FS_USAGE, has_head: false };
        for (root, disk) in at_root() {
            told.sample(root, &[("device", &*disk.name)], disk.fs.used_bytes() as f64, true)?;
        }
        for row in &self.rows {
            if let Some(bytes) = row.layer_bytes {
                told.sample(row, &[("device", "")], bytes as f64, true)?;
            }
        }
        Ok(())
    }

    fn devices(&self, text: &mut Text<'_>) -> io::Result<()> {
        type Of = fn(&BlockDevice) -> f64;
        type OfCgroup = fn(&DeviceIo) -> u64;
        let of: [(&Family, Of, Option<OfCgroup>); 11] = [
            (&READS, |one| one.reads as f64, Some(|io| io.reads)),
            (&SECTORS_READ, |one| one.sectors_read as f64, None),
            (&READS_MERGED, |one| one.reads_merged as f64, None),
            (&READ_SECONDS, |one| one.read_millis as f64 / MILLIS, None),
            (&WRITES, |one| one.writes as f64, Some(|io| io.writes)),
            (&SECTORS_WRITTEN, |one| one.sectors_written as f64, None),
            (&WRITES_MERGED, |one| one.writes_merged as f64, None),
            (&WRITE_SECONDS, |one| one.write_millis as f64 / MILLIS, None),
            (&IO_NOW, |one| one.io_now as f64, None),
            (&IO_SECONDS, |one| one.io_millis as f64 / MILLIS, None),
            (&IO_WEIGHTED, |one| one.io_weighted_millis as f64 / MILLIS, None),
        ];
        for (family, of, of_cgroup) in of {
            let mut told = Told { text: &mut *text, family, has_head: false };
            for row in &self.rows {
                if row.is_root {
                    for disk in &self.disks {
                        // What has no device counts nothing.
                        let value = disk.device.as_ref().map_or(0.0, of);
                        told.sample(row, &[("device", &*disk.name)], value, true)?;
                    }
                } else if let (Some(of), Some(detail)) = (of_cgroup, &row.detail) {
                    for io in &detail.io {
                        told.sample(row, &[("device", self.device(io))], of(io) as f64, true)?;
                    }
                }
            }
        }
        self.bytes(text, &READ_BYTES, |io| io.read_bytes)?;
        self.bytes(text, &WRITTEN_BYTES, |io| io.written_bytes)?;
        let mut told = Told { text: &mut *text, family: &BLKIO, has_head: false };
        for (row, io) in self.all_io() {
            let (major, minor) = (io.major.to_string(), io.minor.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.written_bytes)] {
                let own =
                    [("device", self.device(io)), ("major", &*major), ("minor", &*minor), ("operation", operation)];
                told.sample(row, &own, bytes as f64, true)?;
            }
        }
        Ok(())
    }

    fn bytes(&self, text: &mut Text<'_>, family: &Family, of: impl Fn(&DeviceIo) -> u64) -> io::Result<()> {
        let mut told = Told { text: &mut *text, family, has_head: false };
        self.all_io().try_for_each(|(row, io)| told.sample(row, &[("device", self.device(io))], of(io) as f64, true))
    }

    fn all_io(&self) -> impl Iterator<Item = (&Row, &DeviceIo)> {
        self.rows.iter().flat_map(|row| row.detail.iter().flat_map(|one| &one.io).map(move |io| (row, io)))
    }

    fn device(&self, io: &DeviceIo) -> &str {
        self.names.get(&(io.major, io.minor)).map_or("", String::as_str)
    }

    fn network(&self, text: &mut Text<'_>) -> io::Result<()> {
        type Of = fn(&Interface) -> u64;
        let of: [(&Family, Of); 8] = [
            (&RECEIVED, |one| one.received.bytes),
            (&RECEIVE_ERRORS, |one| one.received.errors),
            (&RECEIVE_DROPPED, |one| one.received.dropped),
            (&RECEIVED_PACKETS, |one| one.received.packets),
            (&SENT, |one| one.sent.bytes),
            (&SEND_ERRORS, |one| one.sent.errors),
            (&SEND_DROPPED, |one| one.sent.dropped),
            (&SENT_PACKETS, |one| one.sent.packets),
        ];
        for (family, of) in of {
            let mut told = Told { text: &mut *text, family, has_head: false };
            for row in &self.rows {
                for interface in &row.interfaces {
                    told.sample(row, &[("interface", &*interface.name)], of(interface) as f64, true)?;
                }
            }
        }
        Ok(())
    }

    fn processes(&self, text: &mut Text<'_>) -> io::Result<()> {
        self.each(text, &PROCESSES, true, |one| Some(one.pids.len() as f64))?;
        self.each(text, &THREADS, true, |one| number(one.usage.processes))?;
        self.each(text, &THREADS_MAX, true, |one| {
            one.usage.processes.map(|_| one.usage.processes_max.unwrap_or(0) as f64)
        })?;
        let with_files = || self.rows.iter().filter_map(|row| Some((row, row.files?)));
        let mut told = Told { text: &mut *text, family: &FILES, has_head: false };
        with_files().try_for_each(|(row, files)| told.sample(row, &[], files.all as f64, true))?;
        let mut told = Told { text: &mut *text, family: &SOCKETS, has_head: false };
        with_files().try_for_each(|(row, files)| told.sample(row, &[], files.sockets as f64, true))?;
        let mut told = Told { text: &mut *text, family: &ULIMITS, has_head: false };
        with_files().try_for_each(|(row, files)| match files.max {
            Some(max) => told.sample(row, &[("ulimit", "max_open_files")], max as f64, true),
            None => Ok(()),
        })
    }
}

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}
