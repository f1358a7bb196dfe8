//! The catalogue: gRPC, one call that answers once and one that streams.

use std::pin::Pin;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, iter};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::books;
use crate::grpc::signed;
use crate::proto::catalogue_server::{Catalogue, CatalogueServer};
use crate::proto::{Book, GetBookRequest, ListBooksRequest};
use crate::stop::Stop;

pub(crate) async fn serve(listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
    Server::builder()
        .add_service(CatalogueServer::new(Shelf))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.wait())
        .await?;
    Ok(())
}

struct Shelf;

#[tonic::async_trait]
impl Catalogue for Shelf {
    async fn get_book(&self, request: Request<GetBookRequest>) -> Result<Response<Book>, Status> {
        let isbn = request.into_inner().isbn;
        books::all()
            .find(|book| book.isbn == isbn)
            .map(|book| signed("catalogue", book))
            .ok_or_else(|| Status::not_found("there is no such book"))
    }

    type ListBooksStream = Pin<Box<dyn Stream<Item = Result<Book, Status>> + Send>>;

    async fn list_books(
        &self,
        _request: Request<ListBooksRequest>,
    ) -> Result<Response<Self::ListBooksStream>, Status> {
        let books: Self::ListBooksStream = Box::pin(iter(books::all().map(Ok)));
        Ok(signed("catalogue", books))
    }
}
