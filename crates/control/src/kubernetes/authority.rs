//! The certificate authority's files in a Secret, so that a pod that is replaced is still the same
//! authority, and replicas are one.
//!
//! The Secret holds what the data directory would: certificates, and keys that are encrypted with
//! the key beside them or with a passphrase. Whoever is first founds the mesh; everybody else takes
//! what is there. Renewals are written by the holder of the Lease.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Cluster;

/// The Secret's name.
pub const NAME: &str = "tulle-authority";
/// The authority's files.
const FILES: [&str; 2] = ["authority.json", "authority.key"];
/// They have a few kilobytes.
const MAX_FILE: u64 = 256 * 1024;
/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(10);
/// How often is looked whether the files were renewed.
const LOOK: Duration = Duration::from_mins(10);

/// Why the authority could not be had from Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum SharedAuthorityError {
    /// The API server did not give it.
    #[error(
        "the certificate authority cannot be had from Secret {namespace}/{NAME}: {why}; without it this control plane would found another mesh: check that the API server is reachable and that the service account may get and create that Secret"
    )]
    Unreachable {
        /// Where it is.
        namespace: String,
        /// What was said.
        why: String,
    },
    /// The Secret has something else in it.
    #[error(
        "Secret {namespace}/{NAME} holds no authority.json: restore it from a backup (deleting it founds a new mesh, which every proxy must join again)"
    )]
    Empty {
        /// Where it is.
        namespace: String,
    },
    /// The files cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

type Files = BTreeMap<String, ByteString>;

/// Puts the authority's files from the Secret into its directory; `false` if there is no Secret yet.
///
/// While the API server is away, files that are there from before are good.
pub async fn restore(cluster: &Cluster, dir: &Path) -> Result<bool, SharedAuthorityError> {
    let api = api(cluster);
    match answer(api.get_opt(NAME)).await {
        Ok(Some(secret)) => {
            let files = secret.data.unwrap_or_default();
            if !files.contains_key(FILES[0]) {
                let namespace = cluster.namespace.clone();
                return Err(SharedAuthorityError::Empty { namespace });
            }
            write(dir, &files)?;
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(why) if dir.join(FILES[0]).is_file() => {
            tracing::warn!(
                "Secret {}/{NAME} cannot be read ({why}); the authority is the one of the data directory",
                cluster.namespace
            );
            Ok(true)
        }
        Err(why) => Err(SharedAuthorityError::Unreachable {
            namespace: cluster.namespace.clone(),
            why,
        }),
    }
}

/// Makes the Secret from the files; `false` if somebody else was quicker, whose files are to be
/// taken instead.
pub async fn found(cluster: &Cluster, dir: &Path) -> Result<bool, SharedAuthorityError> {
    let secret = secret(read(dir)?, None);
    let created = async {
        match api(cluster).create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    };
    answer(created)
        .await
        .map_err(|why| SharedAuthorityError::Unreachable {
            namespace: cluster.namespace.clone(),
            why,
        })
}

/// Writes renewed files into the Secret, for as long as it is polled.
pub async fn keep(cluster: Cluster, dir: PathBuf, leader: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if !*leader.borrow() {
            continue;
        }
        if let Err(error) = refresh(&cluster, &dir).await {
            tracing::warn!("the renewed certificate authority could not be kept: {error}");
        }
    }
}

async fn refresh(cluster: &Cluster, dir: &Path) -> Result<(), SharedAuthorityError> {
    let files = read(dir)?;
    let api = api(cluster);
    let replaced = async {
        let Some(current) = api.get_opt(NAME).await? else {
            return Ok(());
        };
        if current.data.as_ref() == Some(&files) {
            return Ok(());
        }
        let secret = secret(files, current.metadata.resource_version);
        api.replace(NAME, &PostParams::default(), &secret).await?;
        kube::Result::Ok(())
    };
    answer(replaced)
        .await
        .map_err(|why| SharedAuthorityError::Unreachable {
            namespace: cluster.namespace.clone(),
            why,
        })
}

fn api(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

fn secret(files: Files, resource_version: Option<String>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            resource_version,
            ..ObjectMeta::default()
        },
        data: Some(files),
        type_: Some("tulle.dev/authority".to_owned()),
        ..Secret::default()
    }
}

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(ANSWER, asked).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// The files that there are.
fn read(dir: &Path) -> Result<Files, SharedAuthorityError> {
    let mut files = Files::new();
    for name in FILES {
        let path = dir.join(name);
        let failed = |source| SharedAuthorityError::File {
            path: path.clone(),
            source,
        };
        match fs::metadata(&path) {
            Ok(about) if about.len() <= MAX_FILE => {
                files.insert(
                    name.to_owned(),
                    ByteString(fs::read(&path).map_err(failed)?),
                );
            }
            Ok(_) => return Err(failed(io::ErrorKind::FileTooLarge.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(files)
}

/// Writes them for their owner only; the one that counts last.
fn write(dir: &Path, files: &Files) -> Result<(), SharedAuthorityError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.map_err(|source| SharedAuthorityError::File {
        path: dir.to_owned(),
        source,
    })?;
    for name in FILES.iter().rev() {
        let Some(bytes) = files.get(*name) else {
            continue;
        };
        let path = dir.join(name);
        let put = || -> io::Result<()> {
            let new = path.with_extension("new");
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&new)?.write_all(&bytes.0)?;
            fs::rename(&new, &path)
        };
        put().map_err(|source| SharedAuthorityError::File { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use identity::ca::Authority;
    use model::TrustDomain;

    use super::*;

    #[test]
    fn an_authority_travels_by_its_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (here, there) = (dir.path().join("a"), dir.path().join("b"));
        let open =
            |dir: &Path| Authority::load_or_create(dir, &TrustDomain::default(), SystemTime::now());
        let first = open(&here).expect("founded");
        write(&there, &read(&here).expect("read")).expect("written");
        let second = open(&there).expect("opened");
        assert_eq!(first.root_pin(), second.root_pin());
        assert_eq!(read(&dir.path().join("none")).expect("nothing").len(), 0);
    }
}
