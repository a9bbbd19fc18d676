//! The AppArmor profile of a container.
//!
//! Ours is written here and loaded once; that needs Debian's `apparmor_parser`, because the kernel takes only what that has compiled.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rubelet_proto::cri::security_profile::ProfileType;
use rubelet_proto::cri::{LinuxContainerSecurityContext, SecurityProfile};

use super::{HostFacts, SpecError};

/// Name of the profile for `RuntimeDefault`.
pub const NAME: &str = "rubelet-default";
/// The profiles that the kernel has, one a line: `NAME (MODE)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];

/// What a container may not do, whatever its capabilities: mount, change the kernel's settings, see its memory. Of the kernel's
/// settings, shared memory, message queues and the network's can be changed, where the container's own capabilities allow it.
pub const TEXT: &str = "\
#include <tunables/global>

profile rubelet-default flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>

  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer=rubelet-default,
  ptrace (trace,read,tracedby,readby) peer=rubelet-default,

  deny mount,

  deny @{PROC}/* wklx,
  deny @{PROC}/{kcore,sysrq-trigger} rwklx,
  deny @{PROC}/{acpi,asound,bus,driver,fs,irq,mpt,scsi,tty}/** wklx,
  deny @{PROC}/sys/{abi,crypto,debug,dev,sunrpc,user,vm}/** wklx,
  deny @{PROC}/sys/fs/{[^m]*,m[^q]*,[^m]*/**} wklx,
  deny @{PROC}/sys/kernel/{[^ms]**,m[^s]**,s[^eh]**,sec*/**} wklx,

  deny /sys/{block,bus,class,dev,devices,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/{[^c]*,c[^g]*}/** wklx,
  deny /sys/{firmware,kernel/debug,kernel/security,devices/virtual/powercap}/** rwklx,
}
";

/// Whether the kernel has it switched on and there is a parser: without either, as with containerd, nobody is confined.
pub fn is_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
        && Path::new(LOADED).exists()
        && parser().is_some()
}

fn parser() -> Option<&'static str> {
    PARSERS.into_iter().find(|path| Path::new(path).exists())
}

/// The name of the profile to run under; empty: none.
///
/// containerd 2: without a word it is the default profile where the kernel has AppArmor, and none for the privileged; a wish that cannot be
/// fulfilled is refused.
pub(super) fn profile(security: &LinuxContainerSecurityContext, host: &HostFacts) -> Result<String, SpecError> {
    let asked = match &security.apparmor {
        Some(profile) => Some(profile.clone()),
        None => parse(&security.apparmor_profile)?,
    };
    let kind = asked.as_ref().map(SecurityProfile::profile_type);
    match (kind, host.has_apparmor) {
        (Some(ProfileType::Unconfined), _) | (None, false) => Ok(String::new()),
        (Some(ProfileType::RuntimeDefault | ProfileType::Localhost), false) => {
            Err(SpecError::new("failed to generate apparmor spec opts: apparmor is not supported"))
        }
        (Some(ProfileType::RuntimeDefault) | None, true) if security.privileged => Ok(String::new()),
        (Some(ProfileType::RuntimeDefault) | None, true) => load().map(|()| NAME.to_owned()),
        (Some(ProfileType::Localhost), true) => {
            let name = asked.unwrap_or_default().localhost_ref;
            let name = name.trim_start_matches("localhost/");
            if is_loaded(name)? {
                Ok(name.to_owned())
            } else {
                Err(SpecError::new(format!("failed to generate apparmor spec opts: apparmor profile not found {name}")))
            }
        }
    }
}

/// The older field: nothing, `runtime/default`, `unconfined`, `localhost/NAME`.
fn parse(text: &str) -> Result<Option<SecurityProfile>, SpecError> {
    let profile = |kind: ProfileType, name: &str| {
        Ok(Some(SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() }))
    };
    match text {
        "" => Ok(None),
        "runtime/default" => profile(ProfileType::RuntimeDefault, ""),
        "unconfined" => profile(ProfileType::Unconfined, ""),
        other => match other.strip_prefix("localhost/") {
            Some(name) => profile(ProfileType::Localhost, name),
            None => Err(SpecError::new(format!("failed to generate apparmor spec opts: invalid profile {text:?}"))),
        },
    }
}

fn is_loaded(name: &str) -> Result<bool, SpecError> {
    let text = fs::read_to_string(LOADED).map_err(SpecError::io(format!("read {LOADED}")))?;
    Ok(names(&text, name))
}

fn names(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

/// Loads our profile unless it is there. Once at a time.
fn load() -> Result<(), SpecError> {
    static LOADING: Mutex<()> = Mutex::new(());
    let _loading = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_loaded(NAME)? {
        return Ok(());
    }
    parse_text(&["-K", "-r"])
}

/// Has the parser do something with our profile.
fn parse_text(arguments: &[&str]) -> Result<(), SpecError> {
    let program = parser().unwrap_or(PARSERS[0]);
    let failed = |why: String| SpecError::new(format!("load the AppArmor profile {NAME}: {program}: {why}"));
    let mut parser = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = parser.stdin.take() {
        stdin.write_all(TEXT.as_bytes()).map_err(|e| failed(e.to_string()))?;
    }
    let done = parser.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !done.status.success() {
        return Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: ProfileType, privileged: bool, has_apparmor: bool) -> Result<String, String> {
        let apparmor = SecurityProfile { profile_type: kind.into(), localhost_ref: "mine".to_owned() };
        let security = LinuxContainerSecurityContext { apparmor: Some(apparmor), privileged, ..Default::default() };
        with(&security, has_apparmor)
    }

    fn with(security: &LinuxContainerSecurityContext, has_apparmor: bool) -> Result<String, String> {
        let host = HostFacts { has_apparmor, ..HostFacts::look(false) };
        profile(security, &host).map_err(|e| e.to_string())
    }

    #[test]
    fn without_apparmor_a_wish_is_refused() {
        let refused = "failed to generate apparmor spec opts: apparmor is not supported";
        assert_eq!(asked(ProfileType::RuntimeDefault, false, false).unwrap_err(), refused);
        assert_eq!(asked(ProfileType::Localhost, true, false).unwrap_err(), refused);
        assert_eq!(asked(ProfileType::Unconfined, false, false).unwrap(), "");
        let older =
            |text: &str| LinuxContainerSecurityContext { apparmor_profile: text.to_owned(), ..Default::default() };
        assert_eq!(with(&older(""), false).unwrap(), "");
        assert_eq!(with(&older("unconfined"), false).unwrap(), "");
        assert_eq!(with(&older("localhost/x"), false).unwrap_err(), refused);
        let invalid = "failed to generate apparmor spec opts: invalid profile \"foo\"";
        assert_eq!(with(&older("foo"), false).unwrap_err(), invalid);
    }

    #[test]
    fn the_privileged_are_not_confined_unless_they_ask() {
        assert_eq!(with(&LinuxContainerSecurityContext { privileged: true, ..Default::default() }, true).unwrap(), "");
        assert_eq!(asked(ProfileType::RuntimeDefault, true, true).unwrap(), "");
        if !is_enabled() {
            assert!(asked(ProfileType::Localhost, true, true).unwrap_err().contains(LOADED));
        }
    }

    #[test]
    fn profiles_that_are_loaded() {
        let text = "man (enforce)\nsnap (x) (complain)\nrubelet-default-2 (enforce)\n";
        assert!(names(text, "man") && names(text, "snap (x)") && !names(text, "rubelet-default") && !names(text, ""));
    }

    #[test]
    fn the_parser_takes_our_profile() {
        if parser().is_none() {
            eprintln!("not run: there is no {} (Debian's apparmor)", PARSERS[0]);
            return;
        }
        parse_text(&["-Q", "-K"]).unwrap();
    }
}
