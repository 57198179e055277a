//! What the documents say is so.

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

/// All that stands between two texts.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| Some(rest.split_once(close)?.0)).collect()
}

#[tokio::test]
async fn the_readme_has_every_setting_of_the_help_and_no_other() -> Result {
    let scratch = tempfile::tempdir()?;
    let mut pod = PodBuilder::new(&artifacts::plugin("hello")?, scratch.path()).flags(["--help"]).start()?;
    ensure!(pod.exit_code().await? == 0, "there is no help");
    let help = pod.output()?;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let helped: BTreeSet<&str> = help
        .split("ochopod_")
        .skip(1)
        .map(|rest| rest.split(|letter| !is_name(letter)).next().unwrap_or_default())
        .filter(|name| !name.is_empty() && !name.starts_with("set_") && !name.starts_with("rlimit_"))
        .collect();
    ensure!(helped.len() > 15, "the help names {helped:?} only");
    let readme = fs::read_to_string(workspace().join("README.md"))?;
    let table = readme.split("## Settings").nth(1).context("no chapter on settings")?;
    let table = table.split("\n\n").nth(2).context("no table of settings")?;
    let told: BTreeSet<&str> = table
        .lines()
        .skip(2)
        .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
        .filter(|name| name.chars().all(is_name))
        .collect();
    ensure!(told == helped, "the README has {told:?}, the help has {helped:?}");
    Ok(())
}

#[test]
fn what_the_readme_points_to_is_there() -> Result {
    let readme = fs::read_to_string(workspace().join("README.md"))?;
    for link in between(&readme, "](", ")") {
        ensure!(link.starts_with("http") || workspace().join(link).exists(), "there is no {link}");
    }
    let makefile = fs::read_to_string(workspace().join("Makefile"))?;
    for words in between(&readme, "`make ", "`") {
        for target in words.split(' ') {
            ensure!(makefile.contains(&format!("\n{target}:")), "nothing makes {target}");
        }
    }
    ensure!(readme.lines().count() < 200, "the README has {} lines", readme.lines().count());
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
