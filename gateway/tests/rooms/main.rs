//! A room is a module at the root of the gateway's crate, such as `worker` or `codec`. No circle of files may lead
//! through two rooms, so that each room can be read, tested and replaced alone.
//!
//! Reads the source: `use` lines and the paths in code. What is behind `#[cfg(test)]` does not count, and so neither
//! do `tests.rs` files and the simulation.

mod circles;
mod samples;
mod source;
mod tokens;
mod tree;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use circles::{Circle, circles, rooms};
use tree::{Tree, Use};

#[test]
fn no_circle_of_files_leads_through_two_rooms() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    read(&src, "", &mut files).expect("the gateway's source is readable");
    let circles = circles(&Tree::grow(&files).uses());
    assert!(circles.is_empty(), "{}", report(&circles));
}

fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{name}/"), files)?;
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

fn report(circles: &[Circle]) -> String {
    let mut report =
        String::from("files of these rooms use each other in a circle; move what they share into a file of its own\n");
    for circle in circles {
        let rooms: Vec<_> = rooms(circle).into_iter().collect();
        let _ = writeln!(report, "\n{}:", rooms.join(" and "));
        for Use { from, to, line, path } in circle {
            let _ = writeln!(report, "  {from}:{line} uses {path}, which is in {to}");
        }
    }
    report
}
