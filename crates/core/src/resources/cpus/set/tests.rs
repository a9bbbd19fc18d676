use super::*;

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

#[test]
fn lists_are_read_and_written() {
    for (text, numbers, again) in [
        ("", vec![], ""),
        ("5", vec![5], "5"),
        ("1,2,3,4,5", vec![1, 2, 3, 4, 5], "1-5"),
        ("1-5", vec![1, 2, 3, 4, 5], "1-5"),
        ("1-2,3-5", vec![1, 2, 3, 4, 5], "1-5"),
        ("5,4,3,2,1", vec![1, 2, 3, 4, 5], "1-5"),
        ("3-6,1-5", vec![1, 2, 3, 4, 5, 6], "1-6"),
        ("3-3,5-5", vec![3, 5], "3,5"),
        ("0,63-64,128,130-131", vec![0, 63, 64, 128, 130, 131], "0,63-64,128,130-131"),
    ] {
        assert_eq!(set(text).numbers().collect::<Vec<_>>(), numbers, "{text}");
        assert_eq!(set(text).to_string(), again);
        assert_eq!(set(text), numbers.into_iter().collect());
    }
}

#[test]
fn other_text_is_no_list() {
    for (text, why) in [
        ("nonnumeric", r#"strconv.Atoi: parsing "nonnumeric": invalid syntax"#),
        ("non-numeric", r#"strconv.Atoi: parsing "non": invalid syntax"#),
        ("no,numbers", r#"strconv.Atoi: parsing "no": invalid syntax"#),
        ("0-a", r#"strconv.Atoi: parsing "a": invalid syntax"#),
        ("0,a", r#"strconv.Atoi: parsing "a": invalid syntax"#),
        ("1-2,a-3", r#"strconv.Atoi: parsing "a": invalid syntax"#),
        ("0,", r#"strconv.Atoi: parsing "": invalid syntax"#),
        ("3-2", r#"invalid range "3-2" (3 > 2)"#),
        ("-1", r#"strconv.Atoi: parsing "": invalid syntax"#),
        ("0-99999999999", r#"strconv.Atoi: parsing "99999999999": value out of range"#),
    ] {
        assert_eq!(CpuSet::parse(text), Err(why.to_owned()));
    }
}

#[test]
fn sets_are_joined_and_parted() {
    for (one, other, union, both, less) in [
        ("", "", "", "", ""),
        ("5", "", "5", "", "5"),
        ("", "5", "5", "", ""),
        ("1-5", "4-8", "1-8", "4-5", "1-3"),
        ("0-127", "64-127", "0-127", "64-127", "0-63"),
        ("0", "200", "0,200", "", "0"),
        ("0,200", "200", "0,200", "200", "0"),
    ] {
        let (a, b) = (set(one), set(other));
        assert_eq!(a.union(&b), set(union));
        assert_eq!(a.intersection(&b), set(both));
        assert_eq!(a.difference(&b), set(less));
        assert_eq!((a.is_subset(&b), a.is_disjoint(&b)), (less.is_empty(), both.is_empty()), "{one} and {other}");
        assert_eq!(a.len(), a.numbers().count());
        assert!(set(both).is_subset(&a) && !a.has(999));
    }
}
