//! `deploy/systemd/`: what systemd itself says of the unit.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use real_brokers::Scratch;
use tests::binary;
use tokio::process::Command;

/// systemd's measure of what a unit could still harm, in tenths of its points: 96 without any hardening.
const EXPOSURE: &str = "15";

/// Runs systemd-analyze on the unit, installed as docs/deploy.md says, but in a folder.
async fn analyze(words: &[&str]) -> Result<String> {
    let root = Scratch::new("systemd")?;
    let path = |name: &str| root.path().join(name);
    for folder in ["usr/local/bin", "usr/lib/systemd", "usr/bin", "etc/systemd/system"] {
        std::fs::create_dir_all(path(folder))?;
    }
    symlink("usr/bin", path("bin"))?;
    symlink("usr/lib", path("lib"))?;
    std::fs::copy("/bin/kill", path("usr/bin/kill"))?;
    std::fs::copy(binary("fanfare")?, path("usr/local/bin/fanfare"))?;
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/fanfare.service");
    std::fs::copy(unit, path("etc/systemd/system/fanfare.service"))?;
    // The units that every unit depends on.
    let copied =
        Command::new("cp").args(["-r", "/usr/lib/systemd/system"]).arg(path("usr/lib/systemd")).status().await?;
    ensure!(copied.success(), "systemd's own units: {copied}");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(words).arg(format!("--root={}", root.path().display())).arg("fanfare.service");
    let output = analyze.output().await.context("systemd-analyze cannot be run: apt-get install systemd")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "systemd-analyze {words:?}: {said}");
    Ok(said)
}

#[tokio::test]
async fn systemd_finds_nothing_to_say_about_the_unit() -> Result<()> {
    // It ends well also after `Unknown key, ignoring`.
    let said = analyze(&["verify", "--man=no"]).await?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_unit_is_as_shut_in_as_a_server_can_be() -> Result<()> {
    let said = analyze(&["security", "--offline=true", &format!("--threshold={EXPOSURE}")]).await?;
    ensure!(said.contains("Overall exposure level"), "{said}");
    Ok(())
}
