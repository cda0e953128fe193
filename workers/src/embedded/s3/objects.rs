//! The S3 operations of the embedded server: s3s-fs, made atomic.
//!
//! Not a general S3: no versions, no access lists, no part copies. Invariant: whoever reads a key sees bytes and
//! `ETag` of one and the same object, and conditional writes of one key happen one after the other.
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::RwLock;
use tokio_util::io::ReaderStream;

use super::ahead::Ahead;
use super::commit::{Conditions, Staged, explain, io_error, remove_if_there, sync};
use super::layout::{Layout, STAGING};

/// Keys share this many locks.
const LOCKS: usize = 256;

/// Read size of object bodies; s3s-fs reads 4 KiB at a time, which costs a thread switch each.
const READ_BYTES: usize = 256 * 1024;

/// The operations, shared by all connections.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) inner: FileSystem,
    pub(super) layout: Layout,
    /// Whether a write is on the disk before it is answered.
    pub(super) durable: bool,
    /// Parts of uploads under way, joined while others arrive.
    pub(super) ahead: Arc<Ahead>,
    locks: Vec<Arc<RwLock<()>>>,
    hasher: RandomState,
}

impl Objects {
    pub(super) fn new(inner: FileSystem, layout: Layout, durable: bool) -> Self {
        let locks = (0..LOCKS).map(|_| Arc::default()).collect();
        Self { inner, layout, durable, ahead: Arc::default(), locks, hasher: RandomState::new() }
    }

    pub(super) fn lock(&self, bucket: &str, key: &str) -> Arc<RwLock<()>> {
        let slot = self.hasher.hash_one((bucket, key)) % LOCKS as u64;
        Arc::clone(&self.locks[usize::try_from(slot).unwrap_or(0)])
    }

    /// Flushes what was staged and moves it to its key. The lock travels with the work, so that a client who hangs
    /// up cannot release it early.
    pub(super) async fn commit(&self, staged: Staged, bucket: &str, key: &str, conditions: Conditions) -> S3Result<()> {
        let durable = self.durable;
        let staged =
            if durable { blocking(move || sync(&staged.object()).map_err(io_error).map(|()| staged)).await? } else { staged };
        let guard = self.lock(bucket, key).write_owned().await;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        blocking(move || {
            let _guard = guard;
            staged.commit(&bucket, &key, &conditions, durable)
        })
        .await
    }

    async fn delete(&self, bucket: &str, key: &str, conditions: Conditions) -> S3Result<()> {
        let object = self.layout.object(bucket, key)?;
        if !self.layout.bucket(bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket, "there is no bucket `{bucket}`"));
        }
        let guard = self.lock(bucket, key).write_owned().await;
        let (layout, bucket, key) = (self.layout.clone(), bucket.to_owned(), key.to_owned());
        blocking(move || {
            let _guard = guard;
            conditions.check(&layout, &bucket, &key)?;
            if object.is_file() {
                for path in [object, layout.internal(&bucket, &key), layout.attributes(&bucket, &key)] {
                    remove_if_there(&path).map_err(io_error)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn open(&self, bucket: &str, key: &str) -> S3Result<tokio::fs::File> {
        let missing = || match self.layout.bucket(bucket).is_dir() {
            true => s3_error!(NoSuchKey, "there is no object `{key}`"),
            false => s3_error!(NoSuchBucket, "there is no bucket `{bucket}`"),
        };
        let file = match tokio::fs::File::open(self.layout.object(bucket, key)?).await {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(missing()),
            Err(error) => return Err(io_error(error)),
        };
        // A directory opens too, but it is no object.
        match file.metadata().await.map_err(io_error)?.is_file() {
            true => Ok(file),
            false => Err(missing()),
        }
    }
}

/// Runs file operations off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> S3Result<T> + Send + 'static) -> S3Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(s3_error!(error, InternalError, "file operation was cut off")),
    }
}

/// Reads a refused body to its end: a client that is still sending would else see its connection reset, not the answer.
async fn drain(body: Option<StreamingBlob>) {
    use futures::StreamExt;
    if let Some(mut body) = body {
        while let Some(Ok(_)) = body.next().await {}
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.inner.create_bucket(req).await.map_err(explain)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.inner.head_bucket(req).await.map_err(explain)
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.inner.get_bucket_location(req).await.map_err(explain)
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.inner.list_objects(req).await.map_err(explain)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.inner.list_objects_v2(req).await.map_err(explain)
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = &mut req.input;
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let conditions = Conditions { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
        let early = self.layout.object(&bucket, &key).and_then(|_| conditions.check(&self.layout, &bucket, &key));
        if let Err(refused) = early {
            drain(input.body.take()).await;
            return Err(refused);
        }
        let staged = Staged::new(&self.layout);
        input.bucket = STAGING.to_owned();
        input.key.clone_from(&staged.key);
        let answer = self.inner.put_object(req).await.map_err(explain)?;
        self.commit(staged, &bucket, &key, conditions).await?;
        Ok(answer)
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let (bucket, key, range) = (req.input.bucket.clone(), req.input.key.clone(), req.input.range);
        let conditions = Conditions { if_match: req.input.if_match.take(), if_none_match: None };
        let guard = self.lock(&bucket, &key).read_owned().await;
        let mut file = self.open(&bucket, &key).await?;
        conditions.check(&self.layout, &bucket, &key)?;
        let mut answer = self.inner.get_object(req).await.map_err(explain)?;
        drop(guard);
        let whole = file.metadata().await.map_err(io_error)?.len();
        let span = match range {
            Some(range) => range.check(whole)?,
            None => 0..whole,
        };
        file.seek(std::io::SeekFrom::Start(span.start)).await.map_err(io_error)?;
        let body = ReaderStream::with_capacity(file.take(span.end - span.start), READ_BYTES);
        answer.output.body = Some(StreamingBlob::wrap(body));
        Ok(answer)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let _guard = self.lock(&req.input.bucket, &req.input.key).read_owned().await;
        self.open(&req.input.bucket, &req.input.key).await?;
        self.inner.head_object(req).await.map_err(explain)
    }

    async fn copy_object(&self, mut req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let CopySource::Bucket { bucket: from_bucket, key: from_key, .. } = req.input.copy_source.clone() else {
            return Err(s3_error!(NotImplemented, "only objects of this server can be copied"));
        };
        let staged = Staged::new(&self.layout);
        req.input.bucket = STAGING.to_owned();
        req.input.key.clone_from(&staged.key);
        let answer = {
            let _guard = self.lock(&from_bucket, &from_key).read_owned().await;
            self.open(&from_bucket, &from_key).await?;
            self.inner.copy_object(req).await.map_err(explain)?
        };
        self.commit(staged, &bucket, &key, Conditions::default()).await?;
        Ok(answer)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let conditions = Conditions { if_match: input.if_match, if_none_match: None };
        self.delete(&input.bucket, &input.key, conditions).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.delete(&req.input.bucket, &object.key, Conditions::default()).await?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.layout.object(&req.input.bucket, &req.input.key)?;
        if !self.layout.bucket(&req.input.bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket, "there is no bucket `{}`", req.input.bucket));
        }
        self.inner.create_multipart_upload(req).await.map_err(explain)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.store_part(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.stored_parts(req.input).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.list_open(req.input).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.join_parts(req.input).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.known_upload(&req.input.bucket, &req.input.key, &req.input.upload_id)?;
        drop(self.ahead.take(&req.input.upload_id));
        self.inner.abort_multipart_upload(req).await.map_err(explain)
    }
}
