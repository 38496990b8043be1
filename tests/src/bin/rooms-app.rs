//! An app with all that the library offers, for the tests: rooms, a guard, a router, a handle to publish, codes to close with, a
//! hook at the stop.

use fanfare::axum::Router;
use fanfare::axum::extract::State;
use fanfare::axum::http::StatusCode;
use fanfare::axum::response::IntoResponse;
use fanfare::axum::routing::post;
use fanfare::{App, ExitCode, Publisher, Redirect, Socket, UpgradeRequest};

/// Who a guard has let in.
struct Member(String);

fn main() -> ExitCode {
    let mut app = App::new();
    app.ws("/chat/{room}", async |mut socket: Socket| {
        let name = socket.attached::<Member>().map_or_else(String::new, |member| member.0.clone());
        let room = socket.param("room").unwrap_or_default().to_owned();
        socket.join(&room)?;
        socket.send_to(&room, format!("{name} joins {room}")).await?;
        while let Some(message) = socket.recv().await {
            let text = message.to_string();
            match text.split_once(' ') {
                Some(("join", other)) => socket.join(other)?,
                Some(("leave", other)) => socket.send(socket.leave(other).to_string())?,
                Some(("to", rest)) => {
                    let (other, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    socket.send_to(other, format!("{name}: {text}")).await?;
                }
                Some(("close", reason)) => socket.close_with(4321, reason),
                _ => socket.broadcast(format!("all: {text}")).await?,
            }
        }
        let code = socket.close_code().map_or_else(|| "none".to_owned(), |code| code.to_string());
        // The client has gone, so this is for the others.
        socket.send_to(&room, format!("{name} left with {code}")).await?;
        Ok(())
    })
    .guard(async |request: &UpgradeRequest| match (request.cookie("name"), request.query()) {
        (_, "redirect") => Err(Redirect::to("/login").into_response()),
        (Some(name), _) => Ok(Member(format!("{name}@{}", request.param("room").unwrap_or_default()))),
        (None, _) => Err((StatusCode::UNAUTHORIZED, "who are you?\n").into_response()),
    })
    .resumable();
    let publish = async |State(publisher): State<Publisher>, text: String| match publisher
        .send_to("blue", format!("backend: {text}"))
        .await
    {
        Ok(()) => (StatusCode::OK, "sent\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    };
    app.router(Router::new().route("/tell", post(publish)).with_state(app.publisher()));
    let last = app.publisher();
    app.on_shutdown(move || {
        let last = last.clone();
        async move {
            // Sockets of other nodes receive it.
            let _ = last.send_to("blue", "a node stops").await;
        }
    });
    app.run("127.0.0.1:0")
}
