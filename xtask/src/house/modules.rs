//! A reader of Rust sources: the modules of a crate, the modules that each one refers to, and the
//! lengths of functions. Code for tests counts for lengths only.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::Result;

/// A path from the root of a crate.
type Place = Vec<String>;

/// A module of a crate.
#[derive(Debug, Default)]
pub(super) struct Module {
    children: BTreeMap<String, Module>,
    /// The paths that the module itself refers to.
    imports: BTreeSet<Place>,
}

impl Module {
    /// Reads a crate, beginning at its root file.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let dir = root.parent().unwrap_or(root);
        Self::read(root, dir, &mut Vec::new())
    }

    /// Reads the module of a file. `dir` is the directory of its children.
    fn read(path: &Path, dir: &Path, place: &mut Place) -> Result<Self> {
        let failed = |error: Box<dyn Error>| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(error.into()))?;
        let tokens = parse(&text).map_err(failed)?;
        let mut module = Self::default();
        let here = path.parent().unwrap_or(dir);
        module.fill(tokens, (here, dir), place)?;
        Ok(module)
    }

    /// Adds what is in these tokens. Attributes with a path are relative to the first directory.
    fn fill(&mut self, tokens: TokenStream, dirs: (&Path, &Path), place: &mut Place) -> Result<()> {
        let (mut is_test, mut named) = (false, Vec::new());
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                        is_test |= is_for_tests(attribute);
                        named.extend(path_of(attribute));
                        tokens.next();
                    }
                }
                TokenTree::Ident(word) if is_test => {
                    if word != "pub" {
                        skip_item(&mut tokens);
                        is_test = false;
                    }
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let Some(TokenTree::Ident(name)) = tokens.next() else {
                        continue;
                    };
                    let name = name.to_string();
                    place.push(name.clone());
                    let child = self.children.entry(name.clone()).or_default();
                    let below = dirs.1.join(&name);
                    match tokens.next() {
                        Some(TokenTree::Group(body)) => {
                            child.fill(body.stream(), (&below, &below), place)?;
                        }
                        _ => {
                            // Systems may have a file each.
                            for (path, below) in files_of(&name, dirs, &std::mem::take(&mut named))
                            {
                                let read = Self::read(&path, &below, place)?;
                                child.imports.extend(read.imports);
                                child.children.extend(read.children);
                            }
                        }
                    }
                    place.pop();
                }
                TokenTree::Ident(word) => {
                    let start = match word.to_string().as_str() {
                        "crate" => Some(Vec::new()),
                        "self" => Some(place.clone()),
                        "super" => Some(above(place)),
                        _ => None,
                    };
                    if let Some(start) = start {
                        follow(&mut tokens, start, &mut self.imports);
                    }
                }
                TokenTree::Group(group) => self.fill(group.stream(), dirs, place)?,
                _ => named.clear(),
            }
        }
        Ok(())
    }

    /// Returns all paths that the module and those below it refer to.
    fn all_imports(&self) -> BTreeSet<&Place> {
        let below = self.children.values().flat_map(Self::all_imports);
        self.imports.iter().chain(below).collect()
    }
}

/// Returns the files of a module that is declared without a body, each with the directory of its
/// children.
fn files_of(name: &str, (here, dir): (&Path, &Path), named: &[String]) -> Vec<(PathBuf, PathBuf)> {
    if named.is_empty() {
        let below = dir.join(name);
        let own = Some(below.join("mod.rs")).filter(|path| path.exists());
        let path = own.unwrap_or_else(|| dir.join(format!("{name}.rs")));
        return vec![(path, below)];
    }
    let paths = named.iter().map(|named| here.join(named));
    let with_dir = paths.map(|path| {
        let below = path.parent().unwrap_or(here).to_owned();
        (path, below)
    });
    with_dir.collect()
}

fn parse(text: &str) -> Result<TokenStream> {
    // The lexer keeps every text that it has seen.
    proc_macro2::extra::invalidate_current_thread_spans();
    text.parse().map_err(|error| format!("{error}").into())
}

/// Returns whether an attribute keeps its item out of everything but tests.
fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string();
    text.starts_with("cfg") && !text.starts_with("cfg_attr") && {
        let mut words = text.split(|char: char| !char.is_alphanumeric() && char != '_');
        words.any(|word| word == "test") && !text.contains("not")
    }
}

/// Returns the path in `#[path = "…"]` and in `#[cfg_attr(…, path = "…")]`.
fn path_of(attribute: &Group) -> Option<String> {
    let text = attribute.stream().to_string();
    let is_one = text.starts_with("path") || text.starts_with("cfg_attr");
    let (_, path) = text.split_once("path = \"").filter(|_| is_one)?;
    Some(path.split_once('"')?.0.to_owned())
}

fn skip_item(tokens: &mut Peekable<IntoIter>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            _ => {}
        }
    }
}

fn above(place: &[String]) -> Place {
    let mut above = place.to_owned();
    above.pop();
    above
}

/// Follows a path, and each branch of it in braces.
fn follow(tokens: &mut Peekable<IntoIter>, mut path: Place, found: &mut BTreeSet<Place>) {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    while is_colon(tokens.peek()) {
        tokens.next();
        if !is_colon(tokens.peek()) {
            break;
        }
        tokens.next();
        match tokens.peek() {
            Some(TokenTree::Ident(word)) => {
                match word.to_string().as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    word => path.push(word.to_owned()),
                }
                tokens.next();
            }
            Some(TokenTree::Group(branches)) => {
                let mut branches = branches.stream().into_iter().peekable();
                while let Some(token) = branches.next() {
                    let TokenTree::Ident(word) = token else {
                        continue;
                    };
                    let mut branch = path.clone();
                    match word.to_string().as_str() {
                        "super" => drop(branch.pop()),
                        "self" => {}
                        word => branch.push(word.to_owned()),
                    }
                    follow(&mut branches, branch, found);
                    while branches
                        .next_if(
                            |token| !matches!(token, TokenTree::Punct(it) if it.as_char() == ','),
                        )
                        .is_some()
                    {}
                }
                return;
            }
            _ => break,
        }
    }
    found.insert(path);
}

/// Returns the circles among the children of each module: `PARENT {CHILD CHILD …}`. A child may
/// refer to its parent.
pub(super) fn circles(root: &Module) -> Vec<String> {
    let mut found = Vec::new();
    find_circles(root, &mut Vec::new(), &mut found);
    found
}

fn find_circles<'a>(module: &'a Module, place: &mut Vec<&'a str>, found: &mut Vec<String>) {
    let names: Vec<&str> = module.children.keys().map(String::as_str).collect();
    let imports = |child: &Module| -> BTreeSet<usize> {
        let paths = child.all_imports().into_iter();
        let below = paths.filter(|path| path.iter().zip(&*place).all(|(one, other)| one == other));
        let siblings = below.filter_map(|path| path.get(place.len()));
        siblings
            .filter_map(|name| names.iter().position(|it| it == name))
            .collect()
    };
    let edges: Vec<BTreeSet<usize>> = module.children.values().map(imports).collect();
    let reaches = |from: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(edges[at].iter().filter(|next| seen.insert(**next)));
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..names.len()).map(reaches).collect();
    let mut seen = BTreeSet::new();
    for from in 0..names.len() {
        let is_same = |to: &usize| *to != from && reached[*to].contains(&from);
        let others: Vec<usize> = reached[from].iter().copied().filter(is_same).collect();
        if !others.is_empty() && seen.insert(from) {
            seen.extend(&others);
            let all = [from].into_iter().chain(others);
            let all: Vec<&str> = all.map(|at| names[at]).collect();
            let parent = [&["crate"], &place[..]].concat().join("::");
            found.push(format!("{parent} {{{}}}", all.join(" ")));
        }
    }
    for (name, child) in &module.children {
        place.push(name);
        find_circles(child, place, found);
        place.pop();
    }
}

/// Returns the functions of a source, with the number of lines of each.
pub(super) fn functions(text: &str) -> Result<Vec<(String, usize)>> {
    let mut found = Vec::new();
    find_functions(parse(text)?, &mut found);
    Ok(found)
}

fn find_functions(tokens: TokenStream, found: &mut Vec<(String, usize)>) {
    let mut open = None;
    let mut previous = None;
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                if previous.take().is_some_and(|it| it == "fn") {
                    open = Some((word.to_string(), word.span().start().line));
                }
                previous = Some(word.to_string());
            }
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Brace
                    && let Some((name, line)) = open.take()
                {
                    let last = group.span_close().end().line;
                    found.push((name, last + 1 - line));
                }
                previous = None;
                find_functions(group.stream(), found);
            }
            TokenTree::Punct(punct) => {
                previous = None;
                if punct.as_char() == ';' {
                    open = None;
                }
            }
            TokenTree::Literal(_) => previous = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a crate whose modules are all in one text.
    fn circles_of(text: &str) -> Vec<String> {
        let mut module = Module::default();
        let dirs = (Path::new("."), Path::new("."));
        let tokens = parse(text).unwrap();
        module.fill(tokens, dirs, &mut Vec::new()).unwrap();
        circles(&module)
    }

    #[test]
    fn circles_are_found_at_every_level() {
        for (text, expect) in [
            (
                "mod a { use crate::b::X; } mod b { fn f() { crate::c::g() } } mod c {}",
                vec![],
            ),
            (
                "mod a { use crate::b::X; } mod b { use super::a::Y; }",
                vec!["crate {a b}"],
            ),
            (
                "mod a { use crate::{b::{self, X}, d}; } mod b { mod deep { use super::super::c::Z; } } \
                 mod c { fn f() { crate::a::g() } } mod d {}",
                vec!["crate {a b c}"],
            ),
            (
                "mod host { struct Host; mod a { use super::{Host, b}; } mod b { use super::a::X; } }",
                vec!["crate::host {a b}"],
            ),
            // A child refers to its parent, and the parent to its child.
            (
                "mod a { pub struct X; mod b { use super::X; } fn f() { self::b::g() } }",
                vec![],
            ),
            // Tests are not part of the product.
            (
                "mod a { #[cfg(test)] mod tests { use crate::b::X; } #[cfg(test)] use crate::b::Y; } \
                 mod b { use crate::a::Y; }",
                vec![],
            ),
            // Texts and comments are not code.
            (
                "mod a { /* crate::b::X */ const A: &str = \"crate::b::X\"; } mod b { use crate::a::A; }",
                vec![],
            ),
        ] {
            assert_eq!(circles_of(text), expect, "{text}");
        }
    }

    #[test]
    fn a_function_is_as_long_as_its_lines() {
        let text = "trait T {\n    fn none();\n}\nimpl T for X {\n    fn short() {}\n    fn long(\n        \
                    it: u8,\n    ) -> u8 {\n        it\n    }\n}\n";
        let expect = [("short".to_owned(), 1), ("long".to_owned(), 5)];
        assert_eq!(functions(text).unwrap(), expect);
    }
}
