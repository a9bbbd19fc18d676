//! Logical cgroup paths as systemd slices: `kubepods/burstable` is `kubepods.slice/kubepods-burstable.slice`.

/// Path of the slice that stands for these components. None at all is the root, an empty path.
///
/// A `-` inside a component becomes `_`, since `-` separates levels in a slice's name.
pub fn slice_path(components: &[String]) -> String {
    let mut prefix = String::new();
    let mut path = String::new();
    for component in components {
        // `cgroupRoot: /system.slice` names a slice already.
        let component = component.strip_suffix(".slice").unwrap_or(component);
        if !prefix.is_empty() {
            prefix.push('-');
            path.push('/');
        }
        prefix.push_str(&escape(component));
        path.push_str(&prefix);
        path.push_str(".slice");
    }
    path
}

/// `-` to `_`.
pub fn escape(component: &str) -> String {
    component.replace('-', "_")
}

/// `_` to `-`: the way back for pod uids, which have no `_` of their own.
pub fn unescape(component: &str) -> String {
    component.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_recorded() {
        for (path, want) in [
            ("", ""),
            ("kubepods", "kubepods.slice"),
            ("kubepods/burstable", "kubepods.slice/kubepods-burstable.slice"),
            (
                "kubepods/besteffort/podac80-9f16",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podac80_9f16.slice",
            ),
            ("kubepods/podc3", "kubepods.slice/kubepods-podc3.slice"),
            ("my-root/kubepods", "my_root.slice/my_root-kubepods.slice"),
            ("system.slice/kubepods", "system.slice/system-kubepods.slice"),
        ] {
            let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
            assert_eq!(slice_path(&parts), want, "{path}");
        }
    }
}
