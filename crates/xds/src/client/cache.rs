//! The last good resources on disk.
//!
//! One file, replaced whole: written beside, synced, renamed. What cannot be read or is of another
//! node is left aside with a warning, as if it were not there; a single bad resource too.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use model::resource::Kind;
use prost::Message;

use crate::codec;
use crate::delta::client::{Held, Session};
use crate::proto::v1;

/// Larger files are not read.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Puts what the file has into a fresh session.
pub(super) fn load(path: &Path, node_id: &str, session: &mut Session) {
    let cache = match read(path) {
        Ok(Some(cache)) => cache,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last good configuration cannot be read; starting without");
            return;
        }
    };
    if cache.node_id != node_id {
        tracing::warn!(path = %path.display(), node = cache.node_id, "the last good configuration is another proxy's; starting without");
        return;
    }
    for cached in cache.kinds {
        let Some(kind) = codec::kind_of(&cached.type_url) else {
            continue;
        };
        let held = cached.resources.into_iter().filter_map(|resource| {
            let good = codec::decode(kind, &resource.resource).inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "a resource of the last good configuration cannot be used");
            });
            Some(Held::new(resource.version, Arc::new(good.ok()?)))
        });
        session.restore(
            kind,
            cached.subscribed.into_iter().map(Into::into),
            cached.answered.into_iter().map(Into::into),
            held,
        );
    }
}

fn read(path: &Path) -> io::Result<Option<v1::Cache>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("more than {MAX_BYTES} bytes")));
    }
    let cache = v1::Cache::decode(&*bytes).map_err(io::Error::other)?;
    Ok(Some(cache))
}

/// What the session holds, as it goes to the file.
pub(super) fn snapshot(node_id: &str, session: &Session) -> v1::Cache {
    let kinds = Kind::ALL.into_iter().map(|kind| v1::CachedKind {
        type_url: codec::type_url(kind).to_owned(),
        subscribed: session
            .wanted()
            .filter(|(k, _)| *k == kind)
            .map(|(_, name)| name.to_string())
            .collect(),
        answered: session
            .answered(kind)
            .iter()
            .map(ToString::to_string)
            .collect(),
        resources: session
            .held(kind)
            .values()
            .map(|held| v1::CachedResource {
                version: held.version.clone(),
                resource: codec::encode(&held.resource),
            })
            .collect(),
    });
    v1::Cache {
        node_id: node_id.to_owned(),
        kinds: kinds.collect(),
    }
}

/// Replaces the file.
pub(super) fn save(path: &Path, cache: &v1::Cache) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(beside)?;
    file.write_all(&cache.encode_to_vec())?;
    file.sync_all()?;
    fs::rename(beside, path)
}
