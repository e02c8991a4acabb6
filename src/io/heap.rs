//! Gives memory that was freed back to the system. By itself glibc keeps much of it: memory returns
//! to the heap of the thread that had asked for it, and a heap gives back only its end. So what
//! librdkafka's threads have freed is of no use to the thread that counts.
//! How much memory is in use is not counted here.
#![expect(
    unsafe_code,
    reason = "the one file that calls glibc's allocator itself"
)]

/// Gives back all pages in which nothing is in use any more. It takes about a millisecond, and more
/// where there is much to give back. Without glibc it does nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(keep: usize) -> std::ffi::c_int;
        }
        // SAFETY: any thread may call it at any time; it touches only what is free.
        unsafe { malloc_trim(0) };
    }
}
