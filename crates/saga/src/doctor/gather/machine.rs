//! The folder, the ports and the limits of this machine.

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::config::Config;
use crate::doctor::facts::{Folder, Port};
use crate::remote::RunFile;

/// The data folder.
pub(super) fn folder(path: &Path) -> Folder {
    let metadata = std::fs::metadata(path);
    let mode = |path: &Path| std::fs::metadata(path).ok().map(|found| found.permissions().mode());
    // Of a folder that is still to be made: of where it will be.
    let existing = path.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    let free = rustix::fs::statvfs(existing).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let (exists, unusable) = match &metadata {
        Ok(found) if !found.is_dir() => (true, Some("is not a folder".to_owned())),
        Ok(_) => (true, probe(path).err().map(|error| error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = probe(existing).err().map(|error| format!("cannot be made: {error}"));
            (false, parent)
        }
        Err(error) => (true, Some(error.to_string())),
    };
    Folder {
        path: path.display().to_string(),
        exists,
        unusable,
        mode: mode(path).unwrap_or(0),
        free,
        run_file_mode: mode(&RunFile::path(path)),
    }
}

/// Whether a file can be made there; it is gone again at once.
fn probe(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".saga-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)
}

/// What this process may open, as the kernel tells it.
pub(super) fn descriptors() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The three addresses of a shop with these settings.
pub(super) fn ports(config: &Config) -> Vec<Port> {
    let first = config.listen;
    if first.port() == 0 {
        return Vec::new();
    }
    let ip = Some(first.ip()).filter(IpAddr::is_loopback).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let beside = |offset: u16| SocketAddr::new(ip, first.port().saturating_add(offset));
    let wanted = [
        ("customers", first),
        ("the services' gRPC", config.internal_listen.unwrap_or_else(|| beside(1))),
        ("operators", config.admin_listen.unwrap_or_else(|| beside(2))),
    ];
    wanted
        .into_iter()
        .map(|(what, address)| {
            let taken = TcpListener::bind(address).err().map(|error| error.to_string());
            let holder = taken.as_ref().and_then(|_| holder(address.port()));
            Port { what, address: address.to_string(), number: address.port(), taken, holder }
        })
        .collect()
}

/// Who listens on a port, as far as the kernel lets us see.
fn holder(port: u16) -> Option<String> {
    let socket = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = columns.get(1)?.rsplit_once(':')?;
            let listens = *columns.get(3)? == "0A" && u16::from_str_radix(local, 16).ok()? == port;
            listens.then(|| format!("socket:[{}]", columns[9]))
        })
    })?;
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let has = open.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket));
        if has {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}
