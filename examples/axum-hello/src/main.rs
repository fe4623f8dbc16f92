//! A web server with axum. It is ready when it listens. On a stop, it first answers the requests in
//! progress. It logs with the macros of the crate `tracing`, which write to the system log.
//! `axum-hello run ADDRESS` runs it in the foreground; the default address is 127.0.0.1:8080.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use mainstay::{Context, Control, Exit};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    mainstay::service("axum-hello")
        .description("Says hello over HTTP")
        .version(env!("CARGO_PKG_VERSION"))
        .graceful(Duration::from_secs(30))
        .main(hello)
}

fn hello(context: Context) -> Result<(), Exit> {
    let log = tracing_subscriber::registry().with(context.logger().clone());
    log.try_init().context("set the subscriber")?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    Ok(runtime.block_on(serve(context))?)
}

async fn serve(mut context: Context) -> anyhow::Result<()> {
    let address = context.arguments().first();
    let address = address.map_or("127.0.0.1:8080".into(), |it| it.to_string_lossy());
    let listener = TcpListener::bind(&*address).await;
    let listener = listener.with_context(|| format!("listen on {address}"))?;
    let local = listener.local_addr().context("ask where it listens")?;
    tracing::info!("listening on {local}");
    context.ready();
    let router = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/slow/{millis}", get(slow));
    let (stop, stopping) = oneshot::channel::<()>();
    let controls = tokio::spawn(async move {
        while !matches!(context.recv().await, Control::Stop(_)) {}
        // Fails only if the server has ended.
        let _ = stop.send(());
        context
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(async {
            let _ = stopping.await;
        })
        .await
        .context("serve")?;
    controls.await.context("wait for the last control")?;
    Ok(())
}

/// Takes as long as the path says.
async fn slow(Path(millis): Path<u64>) -> &'static str {
    tracing::warn!(millis, "a slow request");
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "finished\n"
}
