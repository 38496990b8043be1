//! Small crates with known uses and circles: they test the reading itself.

use std::collections::BTreeMap;

use crate::circles::{circles, rooms};
use crate::tree::{Tree, Use};

/// The uses in a crate of these files, each as `from line path to`.
fn uses(files: &[(&str, &str)]) -> Vec<String> {
    let line = |Use { from, to, line, path }: Use| format!("{from} {line} {path} {to}");
    found(files).into_iter().map(line).collect()
}

fn found(files: &[(&str, &str)]) -> Vec<Use> {
    let files: BTreeMap<_, _> = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    Tree::grow(&files).uses()
}

/// What `a.rs` uses if it has this text, in a crate with the rooms `b` and `c`.
fn used(text: &str) -> Vec<String> {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", text),
        (
            "b/mod.rs",
            "mod x; pub mod y; pub use self::{x::{X, Hidden as Shown}, y::*}; pub use std::time; pub struct B;",
        ),
        ("b/x.rs", "pub struct X; pub struct Hidden;"),
        ("b/y.rs", "pub fn globbed() { fn inner() {} }"),
        ("c.rs", "pub mod inline { pub struct C; }"),
    ];
    found(&files).into_iter().filter(|link| link.from == "a.rs").map(|link| link.to).collect()
}

#[test]
fn every_form_of_use_is_read() {
    for (text, expected) in [
        ("use crate::b;", vec!["b/mod.rs"]),
        ("use crate::b::B;", vec!["b/mod.rs"]),
        ("pub(crate) use crate::b::y::globbed as other;", vec!["b/y.rs"]),
        ("use crate::{b::{self, y::{globbed}}, c::inline::C,};", vec!["b/mod.rs", "b/y.rs", "c.rs"]),
        ("use super::c::inline::*;", vec!["c.rs"]),
        ("use crate::b::{y as z}; fn f() { z::globbed() }", vec!["b/y.rs"]),
        ("fn f() { use crate::c; }", vec!["c.rs"]),
        ("mod own { use super::super::c; }", vec!["c.rs"]),
        ("use std::{b::B, fmt}; use tokio::c;", vec![]),
    ] {
        assert_eq!(used(text), expected, "{text}");
    }
}

#[test]
fn every_path_in_code_is_read() {
    for (text, expected) in [
        ("fn f() -> crate::b::B { crate::c::inline::C::new() }", vec!["b/mod.rs", "c.rs"]),
        ("struct A(pub crate::b::B, #[from] super::c::inline::C);", vec!["b/mod.rs", "c.rs"]),
        ("use crate::c; fn f() { let x = c::inline::C; }", vec!["c.rs"]),
        ("fn f() { x.y::<crate::c::inline::C>() }", vec!["c.rs"]),
        ("fn f() { std::b::x(); Self::c(); tokio::c::d() }", vec![]),
        ("pub(in crate::b) fn f() {} pub(crate) fn g() {}", vec![]),
        ("//! [`B`](crate::b::B)\n/* crate::c */ const A: &str = \"crate::c::C\";", vec![]),
    ] {
        assert_eq!(used(text), expected, "{text}");
    }
}

#[test]
fn a_reexport_counts_as_a_use_of_the_file_that_defines_the_item() {
    assert_eq!(used("use crate::b::X;"), ["b/x.rs"]);
    assert_eq!(used("use crate::b::Shown;"), ["b/x.rs"]);
    assert_eq!(used("fn f() { crate::b::X::new() }"), ["b/x.rs"]);
    assert_eq!(used("use crate::b::globbed;"), ["b/y.rs"]);
    assert_eq!(used("use crate::b::{inner};"), ["b/mod.rs"], "a name inside a function is no item");
    assert_eq!(used("use crate::b::time;"), ["b/mod.rs"], "a re-export of another crate");
}

#[test]
fn code_that_only_tests_compile_does_not_count() {
    for text in [
        "#[cfg(test)] use crate::b::{X, B};",
        "#[cfg(all(test, unix))] #[allow(dead_code)] pub(crate) fn f<A, B>(a: A) { crate::b::f() }",
        "#[cfg(test)] mod tests { use crate::b; fn f() { { crate::c::g() } } }",
        "struct A { #[cfg(test)] pub b: crate::b::B, d: u8 }",
        "fn f() { match x { #[cfg(test)] A { .. } => crate::b::f(), _ => {} } }",
        "fn f() { match x { #[cfg(test)] A(b) if b => { crate::b::f() } _ => {} } }",
    ] {
        assert_eq!(used(&format!("{text} use crate::c;")), ["c.rs"], "{text}");
    }
    assert_eq!(used("#[cfg(not(test))] use crate::b; #[cfg(unix)] use crate::c;"), ["b/mod.rs", "c.rs"]);
    let files = [("lib.rs", "mod a; #[cfg(test)] mod b;"), ("a.rs", ""), ("b.rs", "use crate::a;")];
    assert!(found(&files).is_empty(), "the whole module is for tests");
}

#[test]
fn a_use_is_named_with_its_line() {
    let files = [("lib.rs", "mod a;\nmod b;"), ("a.rs", "\n\nuse crate::{\n    b::X,\n};"), ("b.rs", "pub struct X;")];
    assert_eq!(uses(&files), ["a.rs 4 crate::b::X b.rs"]);
}

#[test]
#[should_panic(expected = "lib.rs declares the module a, but neither a.rs nor a/mod.rs exists")]
fn a_module_without_a_file_is_an_error() {
    found(&[("lib.rs", "mod a;")]);
}

#[test]
fn a_circle_through_two_rooms_is_found_with_its_shortest_chain() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod x; mod y; pub use x::X;"),
        ("a/x.rs", "use crate::b::B; pub struct X;"),
        ("a/y.rs", "use super::X; use super::x;"),
        ("b.rs", "use crate::a::y::Y; pub struct B;"),
    ];
    let circles = circles(&found(&files));
    let chains: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(|link| &*link.from).collect()).collect();
    assert_eq!(chains, [["a/x.rs", "b.rs", "a/y.rs"]]);
    assert_eq!(rooms(&circles[0]).into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn rooms_that_use_each_other_without_a_circle_of_files_are_allowed() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a/mod.rs", "pub mod x; pub mod y;"),
        ("a/x.rs", "use crate::b::B; use super::y; use crate::c;"),
        ("a/y.rs", "use super::x;"),
        ("b.rs", "use crate::c;"),
        ("c.rs", "use crate::b;"),
    ];
    let found = circles(&found(&files));
    let rooms: Vec<_> = found.iter().map(|circle| rooms(circle).into_iter().collect::<Vec<_>>()).collect();
    assert_eq!(rooms, [["b", "c"]], "x and y are in one room; no circle leads through a");
}
