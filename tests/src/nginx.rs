//! A real nginx: an ordinary web server to stand beside the nodes, or the balancer of `deploy/nginx/` before them.
//!
//! One process without workers, so that it ends with its owner.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use real_brokers::{Port, Scratch, inherited};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::PATIENCE;
use crate::certificate::Certificate;
use crate::names::Names;

/// Where Debian's nginx includes a site, as far as it matters here.
const AROUND: &str = "daemon off; master_process off; pid pid; error_log stderr; events {}\n\
    http { access_log access.log; client_body_temp_path body; proxy_temp_path proxy;\n\
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi; include site.conf; }\n";

/// What a balancer stands before, as `HOST:PORT`.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The nodes.
    pub nodes: [&'a str; 2],
    /// The web server.
    pub web: &'a str,
}

/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(25);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    ports: Vec<Port>,
    directory: Scratch,
    child: Child,
}

impl Nginx {
    /// An ordinary web server: every page shows the headers that nginx got about the client.
    pub async fn web() -> Result<Self> {
        let port = Port::take()?;
        let headers = "$http_x_forwarded_for $http_x_forwarded_proto $http_x_forwarded_port$http_x_forwarded_host";
        let page = format!("default_type text/plain; return 200 \"an ordinary page for {headers}\\n\";");
        let site = format!("server {{ listen {}; {page} }}", port.address);
        Self::start(&site, vec![port]).await
    }

    /// The balancer of `deploy/nginx/`, as this says; to a name server if names stand there.
    pub async fn balancer(site: Site<'_>, certificate: &Certificate, names: Option<&Names>) -> Result<Self> {
        let (http, https) = (Port::take()?, Port::take()?);
        let nodes = [("NODE_1", site.nodes[0]), ("NODE_2", site.nodes[1])];
        let mut files = filled(
            "by-path.conf.template",
            &[
                nodes[0],
                nodes[1],
                ("WEB", site.web),
                ("HTTP", &http.address.to_string()),
                ("HTTPS", &https.address.to_string()),
                ("CERTIFICATE", &certificate.file().display().to_string()),
                ("KEY", &certificate.key().display().to_string()),
            ],
        )
        .await?;
        if let Some(names) = names {
            let resolvers = names.address.to_string();
            files += &filled("resolver.conf.template", &[("NGINX_LOCAL_RESOLVERS", &resolvers)]).await?;
        } else {
            files += &filled("nodes-by-address.conf.template", &nodes).await?;
        }
        Self::start(&files, vec![http, https]).await
    }

    /// Where it listens first: of a balancer, where it redirects to https.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.ports[0].address
    }

    /// Where a balancer speaks TLS.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        self.ports[1].address
    }

    /// What it complained of.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    async fn start(site: &str, ports: Vec<Port>) -> Result<Self> {
        let directory = Scratch::new("nginx")?;
        let file = |name| directory.path().join(name);
        std::fs::write(file("nginx.conf"), AROUND)?;
        std::fs::write(file("site.conf"), site)?;
        let command = || {
            let mut nginx = Command::new("nginx");
            nginx.arg("-p").arg(directory.path()).args(["-e", "stderr", "-c", "nginx.conf"]);
            nginx.env_clear().envs(inherited()).stdin(Stdio::null()).kill_on_drop(true);
            nginx
        };
        let missing = "nginx cannot be run: apt-get install nginx";
        let checked = command().arg("-t").output().await.context(missing)?;
        let said = String::from_utf8_lossy(&checked.stderr);
        ensure!(checked.status.success() && !said.contains("[warn]"), "{said}");
        let log = std::fs::File::create(file("log"))?;
        let child = command().stdout(log.try_clone()?).stderr(log).spawn().context(missing)?;
        let mut nginx = Self { ports, directory, child };
        nginx.listens().await?;
        Ok(nginx)
    }

    async fn listens(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.http()).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("nginx ended with {status}:\n{}", self.log());
            }
            if begin.elapsed() > PATIENCE {
                bail!("nginx does not listen:\n{}", self.log());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }
}

/// A file of `deploy/nginx/` with these variables, as its head says to fill it.
async fn filled(name: &str, variables: &[(&str, &str)]) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx").join(name);
    let template = std::fs::File::open(&file).with_context(|| file.display().to_string())?;
    let mut envsubst = Command::new("envsubst");
    envsubst.arg(variables.iter().map(|(variable, _)| format!("${variable} ")).collect::<String>());
    envsubst.env_clear().envs(inherited()).envs(variables.iter().copied()).stdin(template);
    let output = envsubst.output().await.context("envsubst cannot be run: apt-get install gettext-base")?;
    ensure!(output.status.success(), "envsubst: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
