//! What one file declares and which paths it names, without the code that only tests compile.

use std::collections::BTreeSet;

use crate::tokens::{Token, tokens};

/// Names from the crate's root, such as `["worker", "hub"]`.
pub(crate) type Module = Vec<String>;

/// What one file holds; an inline `mod name { … }` belongs to its file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) modules: BTreeSet<Module>,
    /// Declared with `mod name;`: they have files of their own.
    pub(crate) files: Vec<Module>,
    pub(crate) items: BTreeSet<(Module, String)>,
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: Vec<Named>,
}

/// What a `use` makes known in a module: a name for a path, or `*` for all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) module: Module,
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
}

impl Import {
    /// Where the imported name leads with `rest` after it.
    pub(crate) fn leads(&self, rest: &[String]) -> Vec<String> {
        [self.path.as_slice(), rest].concat()
    }
}

/// A path as written, in a `use` or in code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) module: Module,
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

impl Source {
    /// Reads a file whose own module is `module`.
    pub(crate) fn read(source: &str, module: &[String]) -> Self {
        let mut reader = Reader { tokens: tokens(source), at: 0, found: Self::default() };
        reader.block(module);
        reader.found
    }
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    found: Source,
}

impl Reader {
    /// Reads a module's content: to the brace that ends it, or the end of the file.
    fn block(&mut self, module: &[String]) {
        self.found.modules.insert(module.to_vec());
        let mut depth = 0_usize;
        while let Some(token) = self.peek(0) {
            match token {
                "}" if depth == 0 => return,
                "{" => depth += 1,
                "}" => depth -= 1,
                "#" if self.begins_test() => {
                    self.skip_item();
                    continue;
                }
                "pub"
                    if self.peek(1) == Some("(") && matches!(self.peek(2), Some("in" | "crate" | "super" | "self")) =>
                {
                    self.at += 1;
                    self.skip_group();
                    continue;
                }
                // `+ use<'a>` in a type is no import.
                "use" if self.peek(1) != Some("<") => {
                    self.at += 1;
                    self.tree(module, &[]);
                    continue;
                }
                "mod" => {
                    self.module(module);
                    continue;
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" if depth == 0 => {
                    if let Some(name) = self.peek(1).map(str::to_owned) {
                        self.found.items.insert((module.to_vec(), name));
                    }
                }
                _ if self.begins_path() => {
                    self.path(module);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// `mod name;` or `mod name { … }`.
    fn module(&mut self, parent: &[String]) {
        let Some(name) = self.peek(1).map(str::to_owned) else { return self.at += 1 };
        let module = [parent, &[name]].concat();
        let inline = self.peek(2) == Some("{");
        self.at += 3;
        if inline {
            self.block(&module);
            self.at += 1;
        } else {
            self.found.files.push(module);
        }
    }

    /// One branch of a `use`: names joined by `::`, ended by a name, `as`, `*`, or branches in braces.
    fn tree(&mut self, module: &[String], before: &[String]) {
        let mut path = before.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut name = None;
        while !matches!(self.peek(0), Some("," | ";" | "}") | None) {
            match self.take().as_deref() {
                Some("{") => {
                    while !matches!(self.peek(0), Some("}") | None) {
                        self.tree(module, &path);
                    }
                    self.at += 1;
                    return self.end_branch();
                }
                Some("as") => name = self.take(),
                Some("*") => name = Some("*".to_owned()),
                // `{self}` stands for the path before the braces.
                Some("self") if !path.is_empty() => {}
                Some(part) if is_name(part) => path.push(part.to_owned()),
                _ => {}
            }
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        self.found.imports.push(Import { module: module.to_vec(), name, path: path.clone() });
        self.found.paths.push(Named { module: module.to_vec(), path, line });
        self.end_branch();
    }

    fn end_branch(&mut self) {
        if matches!(self.peek(0), Some("," | ";")) {
            self.at += 1;
        }
    }

    /// Whether a path of more than one name begins here; `.x` and `>::x` begin none.
    fn begins_path(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map(|token| token.text.as_str());
        self.peek(0).is_some_and(is_name) && self.peek(1) == Some("::") && !matches!(before, Some("::" | "."))
    }

    fn path(&mut self, module: &[String]) {
        let line = self.tokens[self.at].line;
        let mut path: Vec<_> = self.take().into_iter().collect();
        while self.peek(0) == Some("::") && self.peek(1).is_some_and(is_name) {
            self.at += 1;
            path.extend(self.take());
        }
        self.found.paths.push(Named { module: module.to_vec(), path, line });
    }

    /// Whether `#[cfg(test)]` or `#[cfg(all(test, …))]` begins here.
    fn begins_test(&self) -> bool {
        let begins = |with: &[&str]| with.iter().enumerate().all(|(n, text)| self.peek(n) == Some(text));
        begins(&["#", "[", "cfg", "(", "test", ")"]) || begins(&["#", "[", "cfg", "(", "all", "(", "test", ","])
    }

    /// Steps over attributes and what they stand before: an item, a statement, a field or an arm.
    fn skip_item(&mut self) {
        while self.peek(0) == Some("#") {
            self.at += 1;
            self.skip_group();
        }
        if self.peek(0) == Some("pub") {
            self.at += 1;
            if self.peek(0) == Some("(") {
                self.skip_group();
            }
        }
        // Commas end a field or an arm, but not the parameters of these.
        let keyword = matches!(
            self.peek(0),
            Some(
                "fn" | "mod"
                    | "use"
                    | "impl"
                    | "struct"
                    | "enum"
                    | "trait"
                    | "type"
                    | "const"
                    | "static"
                    | "async"
                    | "let"
            )
        );
        while let Some(token) = self.peek(0) {
            match token {
                "}" => return,
                ";" => return self.at += 1,
                "," if !keyword => return self.at += 1,
                "{" => {
                    self.skip_group();
                    match self.peek(0) {
                        Some(";" | ",") => return self.at += 1,
                        // The braces were the pattern of an arm.
                        Some("=" | "if") => {}
                        _ => return,
                    }
                }
                "(" | "[" => self.skip_group(),
                _ => self.at += 1,
            }
        }
    }

    /// Steps over a bracket, what is in it, and its end.
    fn skip_group(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.take() {
            match token.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<&str> {
        self.tokens.get(self.at + ahead).map(|token| token.text.as_str())
    }

    fn take(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at)?.text.clone();
        self.at += 1;
        Some(token)
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c == '_' || c.is_alphabetic())
}
