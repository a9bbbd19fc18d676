//! systemd's login service, as far as it tells of the machine going down and waits for who asks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Bus, BusError, SYSTEM_BUS, Value};

const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForShutdown";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// kubelet 1.36: the file that tells logind how long to wait.
const CONF_DIR: &str = "/etc/systemd/logind.conf.d";
const CONF_NAME: &str = "99-kubelet.conf";

/// Where logind is reached and configured.
#[derive(Clone, Debug)]
pub struct Places {
    pub bus: PathBuf,
    /// Directory of its drop-ins.
    pub conf_dir: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { bus: SYSTEM_BUS.into(), conf_dir: CONF_DIR.into() }
    }
}

/// A conversation with logind. Its calls block.
pub struct Logind {
    bus: Bus,
    conf_dir: PathBuf,
}

impl AsFd for Logind {
    /// Readable when it has something to say: see [`Logind::hear`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bus.as_fd()
    }
}

impl Logind {
    /// # Errors
    /// No bus, or one that does not talk to us.
    pub fn connect(places: &Places) -> Result<Self, BusError> {
        Ok(Self { bus: Bus::connect(&places.bus, false, PATIENCE)?, conf_dir: places.conf_dir.clone() })
    }

    /// How long logind waits for who asks it to.
    ///
    /// # Errors
    /// The bus fails, or nobody is there.
    pub fn delay_max(&mut self) -> Result<Duration, BusError> {
        let body = [Value::Str(INTERFACE.into()), Value::Str("InhibitDelayMaxUSec".into())];
        let answer = self.bus.call(SERVICE, OBJECT, "org.freedesktop.DBus.Properties", "Get", &body)?;
        answer.property_u64().map(Duration::from_micros)
    }

    /// Has logind wait at most so long from now on: writes its configuration and has it read again, which takes a while.
    ///
    /// # Errors
    /// The file, or systemd.
    pub fn set_delay_max(&mut self, delay: Duration) -> Result<(), BusError> {
        let secs = delay.as_secs();
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={secs}\n");
        write(&self.conf_dir, &text)?;
        let body = [Value::Str("systemd-logind.service".into()), Value::Str("all".into()), Value::I32(libc::SIGHUP)];
        let systemd = "org.freedesktop.systemd1";
        let manager = "org.freedesktop.systemd1.Manager";
        self.bus.call(systemd, "/org/freedesktop/systemd1", manager, "KillUnit", &body).map(drop)
    }

    /// Asks logind to wait when the machine goes down, until the descriptor is closed.
    ///
    /// # Errors
    /// The bus fails, or logind refuses.
    pub fn inhibit(&mut self) -> Result<OwnedFd, BusError> {
        let words = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        let body = words.map(|word| Value::Str(word.into()));
        self.bus.call(SERVICE, OBJECT, INTERFACE, "Inhibit", &body)?;
        self.bus.take_fd()
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// The bus fails.
    pub fn listen(&mut self) -> Result<(), BusError> {
        self.bus.watch_signal(INTERFACE, SIGNAL)
    }

    /// What was said already: the machine goes down, or it does not after all.
    ///
    /// # Errors
    /// Something that is not understood.
    pub fn said(&mut self) -> Result<Option<bool>, BusError> {
        self.bus.queued(SIGNAL).map(|message| message.truth()).transpose()
    }

    /// Reads one message that has begun to come, for [`Logind::said`].
    ///
    /// # Errors
    /// The bus fails or is gone.
    pub fn hear(&mut self) -> Result<(), BusError> {
        self.bus.read_one()
    }
}

fn write(dir: &Path, text: &str) -> Result<(), BusError> {
    std::fs::create_dir_all(dir)?;
    Ok(std::fs::write(dir.join(CONF_NAME), text)?)
}
