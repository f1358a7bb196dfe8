//! Every YAML example in the documentation is valid as it stands.

use std::path::{Path, PathBuf};

/// The fenced YAML blocks of a page, with the line on which each begins.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            Some(_) if line.starts_with("```") => found.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line.starts_with("```yaml") => open = Some((number + 1, String::new())),
            None => {}
        }
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = Vec::new();
    for directory in [root.clone(), root.join("docs")] {
        let entries =
            std::fs::read_dir(&directory).expect("the repository's directories are there");
        pages.extend(
            entries
                .filter_map(|e| e.ok().map(|e| e.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    pages.sort();
    pages
}

#[test]
fn every_example_in_the_documentation_is_valid() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page can be read");
        for (line, yaml) in examples(&text) {
            let name = format!("{}, example at line {line}", page.display());
            let parsed = config::parse(&name, &yaml);
            seen += 1;
            if parsed.objects.is_empty() && parsed.diagnostics.is_empty() {
                wrong.push(format!("{name}: no objects"));
            }
            wrong.extend(parsed.diagnostics.iter().map(ToString::to_string));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 9, "only {seen} examples were found");
}
