//! Statements of the documentation, verified.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use ochopod_tests::{PodBuilder, Result, artifacts};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the text between two texts.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| Some(rest.split_once(close)?.0)).collect()
}

#[tokio::test]
async fn the_settings_page_has_every_setting_of_the_help_and_no_other() -> Result {
    let scratch = tempfile::tempdir()?;
    let mut pod = PodBuilder::new(&artifacts::plugin("hello")?, scratch.path()).flags(["--help"]).start()?;
    ensure!(pod.exit_code().await? == 0, "no help");
    let help = pod.output()?;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let helped: BTreeSet<&str> = help
        .split("ochopod_")
        .skip(1)
        .map(|rest| rest.split(|letter| !is_name(letter)).next().unwrap_or_default())
        .filter(|name| !name.is_empty() && !name.starts_with("set_") && !name.starts_with("rlimit_"))
        .collect();
    ensure!(helped.len() > 15, "the help names {helped:?} only");
    let page = fs::read_to_string(workspace().join("docs/settings.md"))?;
    let table = page.split("<!-- settings: ").nth(1).context("no generated table of settings")?;
    let rows = table.lines().filter_map(|row| row.split("`ochopod_").nth(1)?.split('`').next());
    let documented: BTreeSet<&str> = rows.filter(|name| name.chars().all(is_name)).collect();
    ensure!(documented == helped, "docs/settings.md has {documented:?}, the help has {helped:?}");
    Ok(())
}

/// Returns every page of the documentation, with its path.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let others = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "plugins/README.md", "wit/README.md"];
    let mut paths = others.map(|name| workspace().join(name)).to_vec();
    for entry in fs::read_dir(workspace().join("docs"))? {
        let path = entry?.path();
        paths.push(if path.is_dir() { path.join("README.md") } else { path });
    }
    let mut pages = Vec::new();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&path)?;
        pages.push((path, text));
    }
    Ok(pages)
}

/// Returns the anchor of a heading: lower case, blanks as `-`, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn links_and_make_targets_of_pages_exist() -> Result {
    let makefile = fs::read_to_string(workspace().join("Makefile"))?;
    for (path, page) in pages()? {
        for link in between(&page, "](", ")").into_iter().filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            ensure!(target.exists(), "{}: broken link {link}", path.display());
            if !heading.is_empty() {
                let target = fs::read_to_string(&target)?;
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                ensure!(found, "{}: broken link {link}", path.display());
            }
        }
        for words in between(&page, "`make ", "`") {
            for target in words.split(' ').filter(|word| !word.contains('=')) {
                ensure!(makefile.contains(&format!("\n{target}:")), "{}: unknown target {target}", path.display());
            }
        }
    }
    Ok(())
}

/// Returns the content of all Rust files below a directory.
fn rust_sources(directory: &Path) -> Result<String> {
    let mut sources = String::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            sources.push_str(&rust_sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(sources)
}

/// Pages that lead contributors to files and items.
const MAPS: [&str; 2] = ["CONTRIBUTING.md", "docs/architecture.md"];

/// Returns what a page has in backticks.
fn code_words(page: &str) -> impl Iterator<Item = &str> {
    page.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn paths_of_the_pages_for_contributors_exist() -> Result {
    let extensions = [".rs", ".wit", ".md", ".sh", ".toml"];
    let is_path = |word: &str| {
        let is_plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_./-".contains(letter));
        let is_file = extensions.iter().any(|extension| word.ends_with(extension));
        is_plain && (is_file || (word.contains('/') && !word.starts_with('/')))
    };
    for name in MAPS {
        let page = fs::read_to_string(workspace().join(name))?;
        // A file without a folder is next to the one before it.
        let mut last = workspace();
        let mut count = 0;
        for word in code_words(&page) {
            if !is_path(word) || word.starts_with("target/") {
                continue;
            }
            let places = [workspace(), workspace().join("host/crates"), last.clone()].map(|place| place.join(word));
            let found = places.iter().find(|path| path.exists());
            let found = found.with_context(|| format!("{name}: {word} does not exist"))?;
            last = found.parent().context("a path without a folder")?.to_owned();
            count += 1;
        }
        ensure!(count > 10, "{name}: {count} paths");
    }
    Ok(())
}

#[test]
fn types_constants_and_functions_of_the_pages_for_contributors_exist() -> Result {
    let sources = rust_sources(&workspace().join("host"))?;
    let is_name = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter))
            && (word.contains("::") || word.starts_with(|first: char| first.is_ascii_uppercase()))
    };
    let exists = |item: &str| {
        let definitions = ["struct", "enum", "trait", "type", "const", "fn"].map(|kind| format!("{kind} {item}"));
        let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        definitions.iter().any(|definition| sources.split(definition.as_str()).skip(1).any(is_end))
    };
    for name in MAPS {
        let page = fs::read_to_string(workspace().join(name))?;
        for word in code_words(&page).filter(|word| is_name(word)) {
            let item = word.rsplit("::").next().unwrap_or(word);
            ensure!(exists(item), "{name}: {word} is not defined below host");
        }
    }
    Ok(())
}

#[test]
fn docs_index_lists_every_page() -> Result {
    let index = fs::read_to_string(workspace().join("docs/README.md"))?;
    for entry in fs::read_dir(workspace().join("docs"))? {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        let link = if path.is_dir() { format!("({name}/README.md)") } else { format!("({name})") };
        ensure!(name == "README.md" || index.contains(&link), "docs/README.md does not list {name}");
    }
    Ok(())
}

#[test]
fn every_plugin_is_described() -> Result {
    let overview = fs::read_to_string(workspace().join("plugins/README.md"))?;
    for entry in fs::read_dir(workspace().join("plugins"))? {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() {
            let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
            ensure!(path.join("README.md").exists(), "{name} has no README");
            ensure!(overview.contains(&name), "the overview is without {name}");
        }
    }
    Ok(())
}

#[test]
fn pages_name_the_version_of_the_workspace() -> Result {
    let version = env!("CARGO_PKG_VERSION");
    let interface: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(workspace().join("docs/openapi.json"))?)?;
    ensure!(interface["info"]["version"] == version, "docs/openapi.json has another version than {version}");
    let page = fs::read_to_string(workspace().join("docs/containers.md"))?;
    let tags: Vec<&str> = page
        .split("ochopod:")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|tag| tag.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    ensure!(!tags.is_empty() && tags.iter().all(|tag| *tag == version), "docs/containers.md has the images {tags:?}");
    Ok(())
}
