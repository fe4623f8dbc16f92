//! Renders diagnostics in the style of `rustc`.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use mainstay_core::manifest::{Diagnostic, Severity};

/// Renders every diagnostic of the file `name`, each followed by an empty line.
pub(crate) fn all(name: &str, found: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    found
        .iter()
        .map(|diagnostic| one(&renderer, name, diagnostic) + "\n\n")
        .collect()
}

fn one(renderer: &Renderer, name: &str, found: &Diagnostic) -> String {
    let title = match found.path.as_str() {
        "" => found.message.clone(),
        path => format!("{path}: {}", found.message),
    };
    let excerpt = &found.excerpt;
    let marked = AnnotationKind::Primary.span(excerpt.marked.clone());
    let snippet = Snippet::source(&*excerpt.text)
        .line_start(found.line)
        .annotation(marked);
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(title).id(found.code.as_str());
    let before = excerpt.text.get(..excerpt.marked.start).unwrap_or_default();
    let mut group = if before.chars().count() + 1 == found.column {
        title.element(snippet.path(name))
    } else {
        // The excerpt is a window of a long line, so the column within it is not the one to show.
        let origin = Origin::path(name).line(found.line);
        title
            .element(origin.char_column(found.column))
            .element(snippet)
    };
    if let Some(help) = &found.help {
        group = group.element(Level::HELP.message(help));
    }
    renderer.render(&[group])
}
