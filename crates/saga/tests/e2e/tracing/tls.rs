//! A collector that is reached over TLS, with a certificate that only those believe who are told to.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::collector::Collector;
use super::tree::whole;
use super::{DECLINED, started, stocked, traced};
use crate::binary::stderr;
use crate::town::eventually;

/// Whoever does not believe the certificate goes away again, and the next is served.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A collector for this protocol, and the file with its certificate.
async fn encrypted(folder: &Path, protocol: &str) -> (Collector, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = folder.join("collector.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    // The one that is wanted and no other.
    config.alpn_protocols = vec![if protocol == "grpc" { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (Collector::listen(Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, url), file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_reached_over_tls_by_its_own_authority_or_by_the_machines() {
    for (protocol, trust) in [
        ("grpc", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("http/protobuf", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        // Where the machine's are is said by OpenSSL's variable.
        ("http/protobuf", "SSL_CERT_FILE"),
    ] {
        let data = TempDir::new().unwrap();
        let (collector, certificate) = encrypted(data.path(), protocol).await;
        let mut command = traced(data.path(), &collector.url, protocol);
        command.env(trust, &certificate);
        let process = started(command, data.path()).await;
        let (admin, cup) = stocked(&process, DECLINED).await;
        let id = admin.buy(&[(cup, 1)]).await;
        assert_eq!(admin.ended(id).await["status"], "COMPENSATED");
        collector.until(&format!("the whole trace, {protocol}, {trust}"), |spans| whole(spans, id)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_nobody_vouches_for_is_told_nothing_and_the_log_says_why() {
    for protocol in ["grpc", "http/protobuf"] {
        let (data, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (collector, _) = encrypted(data.path(), protocol).await;
        let (_, stranger) = encrypted(other.path(), protocol).await;
        let path = data.path().join("log");
        let mut command = traced(data.path(), &collector.url, protocol);
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", stranger).stderr(File::create(&path).unwrap());
        let process = started(command, data.path()).await;
        let (admin, cup) = stocked(&process, 100).await;
        assert_eq!(admin.ended(admin.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
        eventually("the log says why", || async {
            let log = std::fs::read_to_string(&path).unwrap();
            let line = log.lines().find(|line| line.contains("traces cannot be exported"))?;
            assert!(line.contains("invalid peer certificate"), "{protocol}: {line}");
            Some(())
        })
        .await;
        assert!(collector.look(|heard| heard.spans.is_empty()));
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_stops_the_start_and_is_named() {
    let data = TempDir::new().unwrap();
    let empty = data.path().join("empty.pem");
    std::fs::write(&empty, "nothing\n").unwrap();
    for file in [data.path().join("missing.pem"), empty] {
        let mut command = traced(data.path(), "https://127.0.0.1:1", "grpc");
        let output = command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", &file).stderr(Stdio::piped()).output().unwrap();
        let said = stderr(&output);
        assert!(!output.status.success());
        assert!(said.contains("OTEL_EXPORTER_OTLP_CERTIFICATE") && said.contains(file.to_str().unwrap()), "{said}");
    }
}
