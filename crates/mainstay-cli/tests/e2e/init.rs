//! From a directory of sources to a service that is ready, without an editor in between.

use super::*;

/// Runs the project whose files these are, which listens on `port` by default.
fn becomes_ready(program: &str, port: &str, files: &[(&str, &str)]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return mainstay_testkit::skip(format!("{program} is not installed"));
    }
    let sandbox = Sandbox::new();
    for (name, text) in files {
        sandbox.write(name, text);
    }
    let (status, text) = said(&sandbox, &["init", "-o", "-"]);
    assert_eq!(status, 0, "{text}");
    // Tests run at the same time.
    let free = mainstay_testkit::free_port().to_string();
    assert!(text.contains(port), "{text}");
    let manifest = sandbox.write("mainstay.toml", &text.replace(port, &free));
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "shop", "ready");
    assert_eq!(service(&sandbox, "shop")["ready"], true);
    stop(supervisor, &sandbox);
}

#[test]
fn a_python_project_runs_as_it_is() {
    let code = "\
import http.server, os
port = int(os.environ.get('PORT', '8000'))
http.server.ThreadingHTTPServer(('127.0.0.1', port), http.server.SimpleHTTPRequestHandler).serve_forever()
";
    let project = "[project]\nname = 'shop'\n";
    becomes_ready(
        "python3",
        "8000",
        &[("main.py", code), ("pyproject.toml", project)],
    );
}

#[test]
fn a_node_project_runs_as_it_is() {
    let code = "require('http').createServer((_, it) => it.end('hello')).listen(process.env.PORT || 4100);\n";
    let package = r#"{ "name": "shop", "scripts": { "start": "node server.js" } }"#;
    becomes_ready(
        "node",
        "4100",
        &[("server.js", code), ("package.json", package)],
    );
}
