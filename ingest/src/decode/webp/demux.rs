//! libwebp's demuxer: the parts of a WebP file, each part of the bytes given.

use libwebp_sys::{
    WEBP_DEMUX_ABI_VERSION, WebPChunkIterator, WebPData, WebPDemuxDelete, WebPDemuxGetChunk, WebPDemuxGetFrame,
    WebPDemuxGetI, WebPDemuxInternal, WebPDemuxReleaseChunkIterator, WebPDemuxReleaseIterator, WebPDemuxer,
    WebPFormatFeature, WebPIterator,
};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

/// A file that libwebp has taken apart. The bytes are borrowed for as long as the C object keeps pointers into them.
pub(crate) struct Demuxer<'a> {
    raw: NonNull<WebPDemuxer>,
    _bytes: PhantomData<&'a [u8]>,
}

impl<'a> Demuxer<'a> {
    /// `None` unless the whole file is sound as a container.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Demuxer<'a>> {
        let data = WebPData { bytes: bytes.as_ptr(), size: bytes.len() };
        // SAFETY: `data` is read during the call only; what it points to outlives the demuxer by its lifetime. Partial
        // files are not allowed, and no state is requested.
        let raw = unsafe { WebPDemuxInternal(&raw const data, 0, ptr::null_mut(), WEBP_DEMUX_ABI_VERSION as _) };
        Some(Demuxer { raw: NonNull::new(raw)?, _bytes: PhantomData })
    }

    /// Size of the whole picture: (columns, rows).
    pub(super) fn canvas(&self) -> (u32, u32) {
        // SAFETY: `raw` is live until drop.
        let feature = |what| unsafe { WebPDemuxGetI(self.raw.as_ptr(), what) };
        (feature(WebPFormatFeature::WEBP_FF_CANVAS_WIDTH), feature(WebPFormatFeature::WEBP_FF_CANVAS_HEIGHT))
    }

    /// The picture, or an animation's first.
    pub(super) fn first_frame(&self) -> Option<Frame<'_>> {
        let mut iterator = MaybeUninit::<WebPIterator>::zeroed();
        // SAFETY: `raw` is live; the iterator may be uninitialised before the call.
        let found = unsafe { WebPDemuxGetFrame(self.raw.as_ptr(), 1, iterator.as_mut_ptr()) };
        // SAFETY: zero is a value of every field of the iterator; on success libwebp has filled them.
        (found != 0).then(|| Frame { iterator: unsafe { iterator.assume_init() }, _demuxer: PhantomData })
    }

    /// The data of the first chunk of this name that libwebp takes for metadata.
    pub(crate) fn chunk(&self, name: &CStr) -> Option<&'a [u8]> {
        let mut iterator = MaybeUninit::<WebPChunkIterator>::zeroed();
        // SAFETY: `raw` is live; `name` has four bytes before its end; the iterator may be uninitialised before the call.
        let found = unsafe { WebPDemuxGetChunk(self.raw.as_ptr(), name.as_ptr(), 1, iterator.as_mut_ptr()) };
        if found == 0 {
            return None;
        }
        // SAFETY: zero is a value of every field; on success libwebp has filled them.
        let mut iterator = unsafe { iterator.assume_init() };
        // SAFETY: a chunk of the borrowed file.
        let data = unsafe { borrowed(&iterator.chunk) };
        // SAFETY: the iterator was filled by `WebPDemuxGetChunk`; the chunk's bytes are the file's and stay.
        unsafe { WebPDemuxReleaseChunkIterator(&raw mut iterator) };
        Some(data)
    }
}

impl Drop for Demuxer<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `WebPDemuxInternal` and is deleted once.
        unsafe { WebPDemuxDelete(self.raw.as_ptr()) };
    }
}

/// One picture of the file.
pub(super) struct Frame<'d> {
    iterator: WebPIterator,
    _demuxer: PhantomData<&'d ()>,
}

impl Frame<'_> {
    pub(super) fn has_alpha(&self) -> bool {
        self.iterator.has_alpha != 0
    }

    /// Columns to the left of it and rows above it.
    pub(super) fn offset(&self) -> (usize, usize) {
        let place = |at: i32| usize::try_from(at).unwrap_or_default();
        (place(self.iterator.x_offset), place(self.iterator.y_offset))
    }

    /// Its bitstream, with alpha data before it if there is any.
    pub(super) fn data(&self) -> &[u8] {
        // SAFETY: a part of the borrowed file, which outlives the demuxer and the frame.
        unsafe { borrowed(&self.iterator.fragment) }
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        // SAFETY: the iterator was filled by `WebPDemuxGetFrame` and is released once.
        unsafe { WebPDemuxReleaseIterator(&raw mut self.iterator) };
    }
}

/// # Safety
/// `data` must point into bytes that live for `'a`, or be empty.
unsafe fn borrowed<'a>(data: &WebPData) -> &'a [u8] {
    if data.bytes.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(data.bytes, data.size) }
}
