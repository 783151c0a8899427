//! Readers that go away, disks that are full, terminals without colour.

use crate::bed::{Bed, Ran, terminal};
use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

fn prepared() -> Bed {
    let bed = Bed::sqlite();
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    bed
}

#[test]
fn a_reader_that_has_gone_away_does_not_stop_the_work() {
    let bed = prepared();
    let mut command = bed.command(&["deploy"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    let ran = Ran::from(command.spawn().unwrap().wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    assert_eq!(bed.number("select count(*) from _mainstay_migrations"), 1);
}

#[test]
fn a_result_that_could_not_be_written_is_not_a_success() {
    let bed = prepared();
    for arguments in [&["deploy"][..], &["deploy", "--json"]] {
        let mut command = bed.command(arguments);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        command
            .stdin(Stdio::null())
            .stdout(full)
            .stderr(Stdio::piped());
        let ran = Ran::from(command.spawn().unwrap().wait_with_output().unwrap());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("could not be written"), "{ran:?}");
    }
}

#[test]
fn what_is_not_a_terminal_gets_no_colour() {
    let bed = prepared();
    bed.done(&["deploy"]);
    let ran = bed.done(&["status"]);
    assert!(!ran.said().contains('\x1b'), "{ran:?}");
}

#[test]
fn a_terminal_gets_colour_unless_its_user_wants_none() {
    let bed = prepared();
    bed.done(&["deploy"]);
    for (no_color, coloured) in [(None, true), (Some("1"), false), (Some(""), true)] {
        let (mut screen, theirs) = terminal();
        let mut command = bed.command(&["status"]);
        command
            .stdin(Stdio::null())
            .stdout(theirs)
            .stderr(Stdio::null());
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        assert!(command.status().unwrap().success());
        drop(command); // the last one who could still write on the terminal
        let mut shown = Vec::new();
        screen.read_to_end(&mut shown).ok(); // a terminal that nobody writes on any more ends with EIO
        assert!(!shown.is_empty());
        assert_eq!(shown.contains(&0x1b), coloured, "NO_COLOR={no_color:?}");
    }
}
