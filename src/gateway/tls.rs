//! TLS of the gateway: whose certificate, and what a client can pin.
//!
//! A certificate comes from files, or is made here: self-signed, once, and kept with its key in one file of the data
//! directory that only the owner can read. Nobody vouches for such a certificate, so a client pins its fingerprint.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Config;
use crate::identity::secret_file;
use crate::limits::TLS_FILE_BYTES_MAX;
use crate::{Error, Result};

/// The file of a certificate that was made here, in the data directory.
const GENERATED_FILE: &str = "gateway-tls.pem";

/// Whose certificate the gateway shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// One of its own, made when there is none yet, and kept in this folder.
    Generated(PathBuf),
    /// One from files in PEM: the chain with the peer's certificate first, and its key.
    Files {
        /// The certificates.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

/// What a server needs, and the SHA-256 fingerprint of its certificate in hexadecimal.
pub(super) fn load(tls: &Tls, config: &Config) -> Result<(Arc<ServerConfig>, String)> {
    let (certificates, key) = match tls {
        Tls::Generated(folder) => {
            let path = folder.join(GENERATED_FILE);
            let pem = generated(&path, config)?;
            (pem.clone(), pem)
        }
        Tls::Files { certificate, key } => (read(certificate)?, read(key)?),
    };
    let shown = match tls {
        Tls::Generated(folder) => folder.join(GENERATED_FILE).display().to_string(),
        Tls::Files { certificate, key } => format!("{} and {}", certificate.display(), key.display()),
    };
    let unusable = |why: &dyn std::fmt::Display| {
        Error::invalid(format!(
            "there is no certificate with its key in {shown} (PEM, as security.tls needs it): {why}"
        ))
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&certificates).collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    let Some(first) = chain.first() else { return Err(unusable(&"no certificate")) };
    let fingerprint = fingerprint(first);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| unusable(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut server = server.map_err(|error| unusable(&error))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(server), fingerprint))
}

/// What a client pins: the hash of the whole certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error| Error::Io(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(TLS_FILE_BYTES_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// The certificate and the key in a file, which are made when there is none.
fn generated(path: &Path, config: &Config) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(pem) = secret_file::read(path, TLS_FILE_BYTES_MAX)? {
        return Ok(pem);
    }
    let failed = |error: rcgen::Error| Error::Io(format!("a certificate cannot be made: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names(config)).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "aerolithsDB peer");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    let pem = Zeroizing::new(format!("{}{}", certificate.pem(), *Zeroizing::new(key.serialize_pem())));
    secret_file::create(path, pem.as_bytes())?;
    // What the disk has: another process's if that one was first.
    secret_file::read(path, TLS_FILE_BYTES_MAX)?.ok_or_else(|| Error::Io(format!("{} is gone", path.display())))
}

/// The names and addresses under which the peer is called, for clients that check them.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    if !config.bind.is_unspecified() {
        names.push(config.bind.to_string());
    }
    let is_name = |name: &&String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
    };
    names.extend(config.allowed_hosts.iter().filter(is_name).cloned());
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_shown_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::Generated(folder.path().to_owned());
        let names = vec!["peer.example".to_owned(), "Zürich".into(), "192.0.2.1".into()];
        let config = Config { allowed_hosts: names, ..Config::default() };
        let (server, first) = load(&tls, &config).unwrap();
        assert_eq!(server.alpn_protocols, [b"http/1.1"]);
        assert_eq!((load(&tls, &config).unwrap().1, first.len()), (first, 64));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load(&Tls::Generated(other.path().to_owned()), &config).unwrap().1, load(&tls, &config).unwrap().1);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::Generated(folder.path().to_owned());
        load(&tls, &Config::default()).unwrap();
        let path = folder.path().join(GENERATED_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&tls, &Config::default()).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn files_must_hold_a_certificate_and_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let generate = |name: &str| {
            let folder = folder.path().join(name);
            load(&Tls::Generated(folder.clone()), &Config::default()).unwrap();
            folder.join(GENERATED_FILE)
        };
        let (a, b, empty) = (generate("a"), generate("b"), folder.path().join("empty"));
        std::fs::write(&empty, "").unwrap();
        let of = |certificate: &Path, key: &Path| {
            let tls = Tls::Files { certificate: certificate.to_owned(), key: key.to_owned() };
            load(&tls, &Config::default())
        };
        assert_eq!(
            of(&a, &a).unwrap().1,
            load(&Tls::Generated(folder.path().join("a")), &Config::default()).unwrap().1
        );
        for (certificate, key) in [(&a, &b), (&empty, &a), (&a, &empty)] {
            assert!(matches!(of(certificate, key), Err(Error::Invalid(_))), "{certificate:?} {key:?}");
        }
        assert!(matches!(of(&a, &folder.path().join("none")), Err(Error::Io(_))));
    }
}
