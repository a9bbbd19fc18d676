//! What runs: the program, its environment, its directory.

use std::collections::BTreeMap;

use rubelet_proto::cri;
use rubelet_shim::spec::Process;

use super::SpecError;
use crate::image::document::Config;

/// Where programs are when neither the image nor the container says.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program as the image has it and the container wants it. `host_name`: for pods without a name of their own.
pub(super) fn process(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
    image: &Config,
    host_name: &str,
) -> Result<Process, SpecError> {
    let cwd = [config.working_dir.as_str(), image.config.working_dir.as_str(), "/"];
    let cwd = cwd.into_iter().find(|dir| !dir.is_empty()).unwrap_or("/");
    if !cwd.starts_with('/') {
        return Err(SpecError::new(format!("Cwd must be an absolute path, not {cwd:?}")));
    }
    let hostname = if pod.hostname.is_empty() { host_name } else { &pod.hostname };
    Ok(Process {
        terminal: config.tty,
        args: args(config, image)?,
        env: env(config, image, hostname)?,
        cwd: cwd.to_owned(),
        ..Process::default()
    })
}

/// A command replaces the image's entry point with its arguments; arguments alone replace the image's arguments.
fn args(config: &cri::ContainerConfig, image: &Config) -> Result<Vec<String>, SpecError> {
    let own = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => [&config.command[..], &config.args[..]],
        (true, false) => [&image.config.entrypoint[..], &config.args[..]],
        (true, true) => [&image.config.entrypoint[..], &image.config.cmd[..]],
    }
    .concat();
    if own.is_empty() || (own.len() == 1 && own[0].is_empty()) {
        return Err(SpecError::new("no command specified"));
    }
    Ok(own)
}

/// Each name once, where it was first, with its last value: a path, the image's, the terminal, the host's name, the container's own.
fn env(config: &cri::ContainerConfig, image: &Config, hostname: &str) -> Result<Vec<String>, SpecError> {
    let mut env = Env::default();
    env.set(PATH);
    for entry in &image.config.env {
        env.set(entry);
    }
    if config.tty {
        env.set("TERM=xterm");
    }
    env.set(&format!("HOSTNAME={hostname}"));
    for one in &config.envs {
        let value = std::str::from_utf8(&one.value)
            .map_err(|_| SpecError::new(format!("the value of environment variable {:?} is not UTF-8", one.key)))?;
        env.set(&format!("{}={value}", one.key));
    }
    Ok(env.entries.into_iter().flatten().collect())
}

#[derive(Default)]
struct Env {
    /// `None` where one was taken back.
    entries: Vec<Option<String>>,
    places: BTreeMap<String, usize>,
}

impl Env {
    /// `NAME=value`; a name alone takes it back.
    fn set(&mut self, entry: &str) {
        let (name, value) = match entry.split_once('=') {
            Some((name, _)) => (name, Some(entry.to_owned())),
            None => (entry, None),
        };
        match (self.places.get(name), &value) {
            (Some(at), _) => self.entries[*at] = value,
            (None, Some(_)) => {
                self.places.insert(name.to_owned(), self.entries.len());
                self.entries.push(value);
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| (*s).to_owned()).collect()
    }

    fn image(entrypoint: &[&str], cmd: &[&str], env: &[&str]) -> Config {
        let mut image = Config::default();
        (image.config.entrypoint, image.config.cmd, image.config.env) =
            (strings(entrypoint), strings(cmd), strings(env));
        image
    }

    #[test]
    fn programs() {
        let run = |entrypoint: &[&str], cmd: &[&str], command: &[&str], own: &[&str]| {
            let config = cri::ContainerConfig { command: strings(command), args: strings(own), ..Default::default() };
            args(&config, &image(entrypoint, cmd, &[])).map(|a| a.join(" ")).map_err(|e| e.to_string())
        };
        assert_eq!(run(&["/agnhost"], &["pause"], &[], &[]).unwrap(), "/agnhost pause");
        assert_eq!(run(&["/agnhost"], &["pause"], &[], &["netexec"]).unwrap(), "/agnhost netexec");
        assert_eq!(run(&["/agnhost"], &["pause"], &["/x"], &[]).unwrap(), "/x");
        assert_eq!(run(&[], &["sh"], &[], &[]).unwrap(), "sh");
        assert_eq!(run(&[], &["sh"], &[], &["a", "b"]).unwrap(), "a b");
        assert_eq!(run(&[], &[], &[], &[]).unwrap_err(), "no command specified");
        assert_eq!(run(&[""], &[], &[], &[]).unwrap_err(), "no command specified");
    }

    #[test]
    fn the_environment_in_its_order() {
        let env_of = |image_env: &[&str], own: &[(&str, &str)], tty| {
            let value = |(k, v): &(&str, &str)| cri::KeyValue { key: (*k).to_owned(), value: (*v).into() };
            let config = cri::ContainerConfig { envs: own.iter().map(value).collect(), tty, ..Default::default() };
            env(&config, &image(&[], &[], image_env), "web").unwrap()
        };
        assert_eq!(env_of(&[], &[], false), [PATH, "HOSTNAME=web"]);
        assert_eq!(
            env_of(&["PATH=/image", "B=b"], &[("PATH", "/x"), ("A", "A"), ("B", "")], true),
            ["PATH=/x", "B=", "TERM=xterm", "HOSTNAME=web", "A=A"]
        );
        assert_eq!(env_of(&["PATH", "X", "TERM=vt100", "Y=1=2"], &[], true), ["TERM=xterm", "Y=1=2", "HOSTNAME=web"]);
    }

    #[test]
    fn directories_and_host_names() {
        let of = |dir: &str, images: &str, pods: &str| {
            let mut image = image(&["/e"], &[], &[]);
            image.config.working_dir = images.to_owned();
            let config = cri::ContainerConfig { working_dir: dir.to_owned(), ..Default::default() };
            let pod = cri::PodSandboxConfig { hostname: pods.to_owned(), ..Default::default() };
            process(&config, &pod, &image, "node").map(|p| (p.cwd, p.env[1].clone())).map_err(|e| e.to_string())
        };
        assert_eq!(of("", "", "").unwrap(), ("/".to_owned(), "HOSTNAME=node".to_owned()));
        assert_eq!(of("/w", "/i", "web").unwrap(), ("/w".to_owned(), "HOSTNAME=web".to_owned()));
        assert_eq!(of("", "/i", "web").unwrap().0, "/i");
        assert_eq!(of("rel", "/i", "").unwrap_err(), "Cwd must be an absolute path, not \"rel\"");
    }
}
