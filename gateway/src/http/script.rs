//! The JavaScript client, served by every node: `/fanfare.js`, its parts for presence and for shared tabs, and its types.
//!
//! The files are those of `clients/js`, by links in `gateway/src/page`, so that a packed crate contains them.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Response, StatusCode};

use crate::field::lists;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// How long a browser uses its copy without asking. An old client works with new nodes.
const KEPT: &str = "public, max-age=300";

/// A file of the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    /// Where it is served.
    pub(crate) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// All files of the client.
pub(crate) const SCRIPTS: [Script; 4] = [
    Script { path: "/fanfare.js", kind: JAVASCRIPT, text: include_str!("../page/fanfare.js") },
    Script { path: "/fanfare-members.js", kind: JAVASCRIPT, text: include_str!("../page/fanfare-members.js") },
    Script { path: "/fanfare-share.js", kind: JAVASCRIPT, text: include_str!("../page/fanfare-share.js") },
    Script { path: "/fanfare.d.ts", kind: "text/plain; charset=utf-8", text: include_str!("../page/fanfare.d.ts") },
];

impl Script {
    /// The response to a GET: without a body if the browser has this very text.
    pub(crate) fn answer(self, asked: &HeaderMap) -> Response<Body> {
        let tag = self.tag();
        let known = lists(asked, "if-none-match", &tag) || lists(asked, "if-none-match", &format!("W/{tag}"));
        let mut response = Response::new(if known { Body::empty() } else { Body::from(self.text) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(KEPT));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A page of another site may import a module only if the server allows it. The text is the same for all.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// The same on all nodes of one build.
    fn tag(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}
