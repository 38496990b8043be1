//! The files of a crate, and which file each file names.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Import, Module, Source};

/// One file names something that another one defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// A crate as its modules; each is in a file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    modules: BTreeMap<Module, String>,
    sources: BTreeMap<String, Source>,
}

/// A chain of re-exports is never longer; a circle of globs would go on for ever.
const HOPS: usize = 16;

impl Tree {
    /// Follows the `mod` lines from `lib.rs`. `files` are the texts by path, relative to the crate's `src`.
    pub(crate) fn grow(files: &BTreeMap<String, String>) -> Self {
        let mut tree = Self::default();
        tree.add(files, "lib.rs", &[]);
        tree
    }

    fn add(&mut self, files: &BTreeMap<String, String>, file: &str, module: &[String]) {
        let source = Source::read(&files[file], module);
        for module in &source.modules {
            self.modules.insert(module.clone(), file.to_owned());
        }
        for child in &source.files {
            let stem = child.join("/");
            let places = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
            let Some(place) = places.iter().find(|place| files.contains_key(*place)) else {
                panic!("{file} declares the module {}, but neither {} exists", child.join("::"), places.join(" nor "));
            };
            self.add(files, place, child);
        }
        self.sources.insert(file.to_owned(), source);
    }

    /// Each pair of files once, with the first place where the first names the second.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut seen = BTreeSet::new();
        let mut uses = Vec::new();
        for (from, source) in &self.sources {
            for named in &source.paths {
                let Some(to) = self.locate(&named.module, &named.path, HOPS).map(Place::file) else { continue };
                if to != *from && seen.insert((from.clone(), to.clone())) {
                    uses.push(Use { from: from.clone(), to, line: named.line, path: named.path.join("::") });
                }
            }
        }
        uses
    }

    /// Where a path that stands in `module` leads; nowhere if it leaves the crate.
    fn locate(&self, module: &[String], path: &[String], hops: usize) -> Option<Place> {
        let hops = hops.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(&[], rest, hops),
            "self" | "super" => self.descend(module, path, hops),
            _ if self.knows(module, first) => self.descend(module, path, hops),
            _ => self.imports(module, first).find_map(|import| self.locate(module, &import.leads(rest), hops)),
        }
    }

    /// Where `path` leads from inside `module`.
    fn descend(&self, module: &[String], path: &[String], hops: usize) -> Option<Place> {
        let file = self.modules.get(module)?.clone();
        let hops = hops.checked_sub(1)?;
        let Some((first, rest)) = path.split_first() else { return Some(Place::Module(module.to_vec(), file)) };
        let child = [module, std::slice::from_ref(first)].concat();
        if first == "super" {
            return self.descend(module.split_last()?.1, rest, hops);
        } else if first == "self" {
            return self.descend(module, rest, hops);
        } else if self.modules.contains_key(&child) {
            return self.descend(&child, rest, hops);
        }
        // A re-export leads to the file that defines the item; one from another crate belongs to the file that has it.
        if let Some(import) = self.imports(module, first).next() {
            return self.locate(module, &import.leads(rest), hops).or(Some(Place::Item(file)));
        }
        for glob in self.imports(module, "*") {
            if let Some(Place::Module(target, _)) = self.locate(module, &glob.path, hops)
                && self.knows(&target, first)
            {
                return self.descend(&target, path, hops);
            }
        }
        Some(Place::Item(file))
    }

    /// Whether `module` itself has a module or an item of this name.
    fn knows(&self, module: &[String], name: &str) -> bool {
        let child = [module, &[name.to_owned()]].concat();
        self.modules.contains_key(&child)
            || self.modules.get(module).is_some_and(|file| {
                self.sources.get(file).is_some_and(|source| source.items.contains(&(module.to_vec(), name.to_owned())))
            })
    }

    fn imports<'a>(&'a self, module: &'a [String], name: &'a str) -> impl Iterator<Item = &'a Import> {
        let source = self.modules.get(module).and_then(|file| self.sources.get(file));
        source.into_iter().flat_map(|source| &source.imports).filter(move |i| i.module == module && i.name == name)
    }
}

/// What a path leads to, and the file that it is in.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Module(Module, String),
    Item(String),
}

impl Place {
    fn file(self) -> String {
        match self {
            Self::Module(_, file) | Self::Item(file) => file,
        }
    }
}
