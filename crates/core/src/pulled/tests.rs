use super::*;

fn secret(name: &str, uid: &str, hash: &str) -> Secret {
    Secret { namespace: "ns".into(), name: name.into(), uid: uid.into(), hash: hash.into() }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(secs).expect("a time")
}

fn record(name: &str, credentials: Credentials) -> Record {
    Record { updated: at(1), image_ref: "sha256:1".into(), credentials: [(name.to_owned(), credentials)].into() }
}

fn policy(word: &str) -> Policy {
    Policy::named(word, &["r.test/free".to_owned(), "open.test/*".to_owned()]).expect("a policy")
}

#[test]
fn names_lose_tag_and_digest() {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (image, wanted) in [
        ("nginx".to_owned(), "nginx"),
        ("nginx:1".to_owned(), "nginx"),
        ("r.test:5000/a/b".to_owned(), "r.test:5000/a/b"),
        ("r.test:5000/a/b:1".to_owned(), "r.test:5000/a/b"),
        (format!("r.test:5000/a/b:1@{digest}"), "r.test:5000/a/b"),
        (format!("a@{digest}"), "a"),
    ] {
        assert_eq!(bare(&image), wanted, "{image}");
    }
}

#[test]
fn the_policy_says_which_images_need_a_proof() {
    for (word, image, preloaded, pulled) in [
        ("NeverVerify", "r.test/a:1", false, false),
        ("NeverVerifyPreloadedImages", "r.test/a:1", false, true),
        ("AlwaysVerify", "r.test/a:1", true, true),
        ("NeverVerifyAllowlistedImages", "r.test/a:1", true, true),
        ("NeverVerifyAllowlistedImages", "r.test/free:1", false, false),
        ("NeverVerifyAllowlistedImages", "r.test/free/more:1", true, true),
        ("NeverVerifyAllowlistedImages", "open.test/any/image:1", false, false),
        ("NeverVerifyAllowlistedImages", "open.test.evil/any", true, true),
    ] {
        let verdict = |needs| if needs { Verdict::MustPull } else { Verdict::Allowed };
        let policy = policy(word);
        assert_eq!(judge(&policy, image, Origin::Preloaded, &[]), verdict(preloaded), "{word} {image}, preloaded");
        assert_eq!(judge(&policy, image, Origin::Begun, &[]), verdict(pulled), "{word} {image}, begun");
        let of_nobody = record(bare(image), Credentials::default());
        let origin = Origin::Pulled(&of_nobody);
        assert_eq!(judge(&policy, image, origin, &[]), verdict(pulled), "{word} {image}, pulled");
        assert_eq!(judge(&policy, image, Origin::Unreadable, &[]), Verdict::Unknown, "{word} {image}, unreadable");
    }
    assert_eq!(Policy::named("Bogus", &[]), None);
}

#[test]
fn a_proof_is_a_secret_that_it_was_pulled_with_or_one_of_the_same_content() {
    let (a, other) = (secret("a", "1", "h1"), secret("b", "2", "h2"));
    let known = Credentials { secrets: vec![a.clone(), secret("unhashed", "9", "")], ..Credentials::default() };
    let renewed = secret("a", "1", "h9");
    let copy = secret("copy", "3", "h1");
    let again = secret("a", "4", "h7");
    for (what, credentials, shown, wanted) in [
        ("nothing shown", known.clone(), vec![], Verdict::MustPull),
        ("the same", known.clone(), vec![a.clone()], Verdict::Proven(None)),
        ("another", known.clone(), vec![other.clone()], Verdict::MustPull),
        ("another and the same", known.clone(), vec![other.clone(), a.clone()], Verdict::Proven(None)),
        ("new content", known.clone(), vec![renewed.clone()], Verdict::Proven(Some(renewed))),
        ("a copy", known.clone(), vec![copy.clone()], Verdict::Proven(Some(copy.clone()))),
        ("made anew with other content", known.clone(), vec![again], Verdict::MustPull),
        ("no hash proves nothing", known, vec![secret("x", "8", "")], Verdict::MustPull),
        ("for all", Credentials::for_all(), vec![], Verdict::Proven(None)),
        (
            "an account of which no token is shown",
            Credentials {
                accounts: vec![Account { namespace: "ns".into(), name: "sa".into(), uid: "5".into() }],
                ..Credentials::default()
            },
            vec![a],
            Verdict::MustPull,
        ),
        ("too many are noted", many(), vec![copy], Verdict::Proven(None)),
        ("too many are noted, and it is another now", many(), vec![secret("n", "7", "h0")], Verdict::MustPull),
    ] {
        let record = record("r.test/a", credentials);
        let policy = policy("NeverVerifyPreloadedImages");
        assert_eq!(judge(&policy, "r.test/a:1", Origin::Pulled(&record), &shown), wanted, "{what}");
    }
}

fn many() -> Credentials {
    let secrets = (0..NOTED_MAX).map(|i| secret(&format!("s{i}"), "7", "h1")).collect();
    Credentials { secrets, ..Credentials::default() }
}

#[test]
fn the_same_image_under_another_name_is_another_image() {
    let record = record("r.test/a", Credentials::for_all());
    let policy = policy("NeverVerifyPreloadedImages");
    assert_eq!(judge(&policy, "r.test/b:1", Origin::Pulled(&record), &[]), Verdict::MustPull);
}

#[test]
fn a_record_says_by_what_an_image_came() {
    let after = |known: Option<&Record>, credentials: Option<&Credentials>| {
        Record::after_pull(known, "r.test/a:1", "sha256:1", credentials, at(5))
    };
    let (one, two) = (Credentials::of_secret(secret("a", "1", "h1")), Credentials::of_secret(secret("A", "2", "h2")));
    let first = after(None, Some(&one)).expect("a first record is written");
    assert_eq!(first, Record { updated: at(5), ..record("r.test/a", one.clone()) });
    let nobody = after(None, None).expect("that it came is written, too");
    assert_eq!(nobody.credentials, BTreeMap::new());
    let known = record("r.test/a", one.clone());
    assert_eq!(after(Some(&known), Some(&one)), None, "nothing new");
    assert_eq!(after(Some(&known), None), None, "nothing is known");
    assert_eq!(after(Some(&known), Some(&Credentials::default())), None, "nobody's credentials");
    let both = after(Some(&known), Some(&two)).expect("another secret is added");
    assert_eq!(both.updated, at(5));
    let secrets = vec![secret("A", "2", "h2"), secret("a", "1", "h1")];
    assert_eq!(both.credentials["r.test/a"], Credentials { secrets, ..Credentials::default() });
    let renewed = Credentials::of_secret(secret("a", "1", "h3"));
    let changed = after(Some(&known), Some(&renewed)).expect("new content is noted");
    assert_eq!(changed.credentials["r.test/a"], renewed, "in the place of the old one");
    let all = after(Some(&both), Some(&Credentials::for_all())).expect("then everybody may");
    assert_eq!(all.credentials["r.test/a"], Credentials::for_all());
    assert_eq!(after(Some(&all), Some(&one)), None, "everybody may already");
    let elsewhere = record("r.test/b", Credentials::for_all());
    let named = after(Some(&elsewhere), Some(&one)).expect("under another name");
    assert_eq!(named.credentials["r.test/a"], one);
    assert_eq!(named.credentials["r.test/b"], Credentials::for_all());
}

#[test]
fn a_record_goes_with_its_image_but_not_when_it_is_younger_than_the_look() {
    for (is_here, looked_at, wanted) in [(true, 9, false), (false, 9, true), (false, 1, false), (false, 0, false)] {
        let record = record("a", Credentials::for_all());
        assert_eq!(record.is_over(is_here, at(looked_at)), wanted, "{is_here} {looked_at}");
    }
}

#[test]
fn credentials_are_written_as_go_writes_them() {
    for (given, wanted) in [
        (("me", "secret", ""), r#"{"username":"me","password":"secret"}"#),
        (("", "", ""), "{}"),
        (
            ("a<b>&\"\\\u{8}\u{c}\n\r\t\0\u{1f}\u{2028}é", "p", "x@y"),
            r#"{"username":"a\u003cb\u003e\u0026\"\\\b\f\n\r\t\u0000\u001f\u2028é","password":"p","email":"x@y"}"#,
        ),
    ] {
        assert_eq!(credential_text(given.0, given.1, given.2), wanted);
    }
}
