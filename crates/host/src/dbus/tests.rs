use super::wire::{Call, Message};
use super::*;

/// A call as the specification lays it out, byte by byte.
#[test]
fn a_call_is_encoded_as_specified() {
    let body = [Value::Str("a.slice".into()), Value::Bool(true)];
    let call = Call { destination: Some("d"), path: "/p", interface: "i", member: "M", body: &body };
    let mut want = vec![b'l', 1, 0, 1];
    want.extend(16u32.to_le_bytes()); // body
    want.extend(7u32.to_le_bytes()); // serial
    want.extend(72u32.to_le_bytes()); // header fields, without the padding at their end
    want.extend(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
    want.extend(b"\x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0");
    want.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
    want.extend(b"\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0");
    want.extend(b"\x08\x01g\0\x02sb\0");
    want.extend(b"\x07\0\0\0a.slice\0\x01\0\0\0");
    assert_eq!(call.encode(7), want);
}

#[test]
fn properties_are_aligned_structs_with_variants() {
    let body = [Value::Properties(vec![("N", Value::U64(5))])];
    let call = Call { destination: None, path: "/p", interface: "i", member: "M", body: &body };
    let got = call.encode(1);
    // array length 24, padding to 8, "N", signature "t", padding to 8, the number
    let want = b"\x18\0\0\0\0\0\0\0\x01\0\0\0N\0\x01t\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0";
    assert!(got.ends_with(want), "{got:?}");
    assert_eq!(u32::from_le_bytes([got[4], got[5], got[6], got[7]]), want.len() as u32);
}

#[test]
fn what_is_encoded_is_decoded() {
    let body = [Value::Str("/job/1".into())];
    let call = Call { destination: Some("x.y"), path: "/p", interface: "i", member: "Member", body: &body };
    let bytes = call.encode(3);
    let head: [u8; 16] = bytes[..16].try_into().unwrap();
    assert_eq!(wire::length_after_head(&head, MESSAGE_MAX).unwrap(), bytes.len() - 16);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.kind, message.member.as_deref()), (Kind::Call, Some("Member")));
    assert_eq!(message.first_text().unwrap(), "/job/1");
    assert!(message.body_texts("uoss").is_err());
    for cut in 0..bytes.len() {
        assert!(Message::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_long_message_is_refused() {
    let mut head = [0; 16];
    head[0] = b'l';
    head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(wire::length_after_head(&head, MESSAGE_MAX).is_err());
}

struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A real bus daemon judges our bytes: it disconnects whoever sends a malformed message.
#[test]
fn a_real_bus_daemon_understands_us() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let config = dir.path().join("conf");
    let text = format!(
        "<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context='default'><allow send_destination='*' \
         eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    let child = std::process::Command::new("dbus-daemon")
        .arg("--nofork")
        .arg("--print-address")
        .arg(format!("--config-file={}", config.display()))
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(child) = child else {
        eprintln!("not run: no dbus-daemon here");
        return;
    };
    let mut daemon = Daemon(child);
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(daemon.0.stdout.take().unwrap()), &mut line).unwrap();

    let mut bus = Bus::connect(&socket, false, Duration::from_secs(10)).unwrap();
    bus.watch_signal("org.freedesktop.DBus", "NameAcquired").unwrap();
    let properties = vec![
        ("Description", Value::Str("x".into())),
        ("CPUWeight", Value::U64(7)),
        ("Wants", Value::StrArray(vec!["a.slice".into(), "b.slice".into()])),
        ("DefaultDependencies", Value::Bool(false)),
        ("Number", Value::U32(1)),
    ];
    let body =
        [Value::Str("u".into()), Value::Str("replace".into()), Value::Properties(properties), Value::NoAuxiliaryUnits];
    let error = bus.call("org.freedesktop.systemd1", "/org", "org.Manager", "StartTransientUnit", &body).unwrap_err();
    assert!(
        matches!(&error, BusError::Refused { name, .. } if name == "org.freedesktop.DBus.Error.ServiceUnknown"),
        "{error:?}"
    );
    let dbus = "org.freedesktop.DBus";
    bus.call(dbus, "/", dbus, "RequestName", &[Value::Str("a.b.c".into()), Value::U32(4)]).unwrap();
    bus.wait_signal("NameAcquired", |m| m.first_text().is_ok_and(|n| n == "a.b.c")).unwrap();
}
