//! Why one waits, and how that ends: the same words in both lanes.

/// Why a goroutine waits, as its dump says it.
pub const WaitReason = enum(u8) {
    none,
    chan_receive,
    chan_send,
    select,
    select_no_cases,
    sleep,
    io_read,
    io_write,
    io_close,
    join,
    wait_group,
    lock,
    mutex_lock,
    rwmutex_lock,
    rwmutex_rlock,
    cond_wait,
    once_do,
    semacquire,
    event_wait,
    barrier_wait,
    gosched,
    preempted,
    events,
    shutdown,
    native_call,

    /// A wait for a lock, which nothing has been given yet: it may be left and begun anew.
    pub fn isForLock(r: WaitReason) bool {
        return switch (r) {
            .lock, .mutex_lock, .rwmutex_lock, .rwmutex_rlock, .semacquire => true,
            else => false,
        };
    }

    pub fn text(r: WaitReason) [:0]const u8 {
        return switch (r) {
            .none => "",
            .chan_receive => "chan receive",
            .chan_send => "chan send",
            .select => "select",
            .select_no_cases => "select (no cases)",
            .sleep => "sleep",
            .io_read => "IO wait (read)",
            .io_write => "IO wait (write)",
            .io_close => "IO wait (close)",
            .join => "goroutine join",
            .wait_group => "waitgroup wait",
            .lock => "lock",
            .mutex_lock => "sync.Mutex.Lock",
            .rwmutex_lock => "sync.RWMutex.Lock",
            .rwmutex_rlock => "sync.RWMutex.RLock",
            .cond_wait => "sync.Cond.Wait",
            .once_do => "sync.Once.Do",
            .semacquire => "semacquire",
            .event_wait => "event wait",
            .barrier_wait => "barrier wait",
            .gosched => "gosched",
            .preempted => "preempted",
            .events => "event delivery",
            .shutdown => "shutdown",
            .native_call => "native call",
        };
    }
};

/// How a wait ended.
pub const Wake = enum(u8) {
    /// What was waited for happened.
    ready,
    /// The object was closed.
    closed,
    /// The time was up.
    timeout,
    /// This goroutine has to raise; the layer above knows what.
    interrupted,
};
