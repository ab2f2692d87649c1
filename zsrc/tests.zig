//! Collects the core's unit tests: `zig build test`.
test {
    _ = @import("os/os.zig");
    _ = @import("os/os.zig").impl;
    _ = @import("os/descriptors.zig");
    _ = @import("os/counter.zig");
    _ = @import("os/handle.zig");
    _ = @import("arch/arch.zig");
    _ = @import("core/heap.zig");
    _ = @import("core/list.zig");
    _ = @import("core/waiters_test.zig");
    _ = @import("core/schema.zig");
    _ = @import("core/tunables.zig");
    _ = @import("serial/stack.zig");
    _ = @import("serial/g.zig");
    _ = @import("serial/timer.zig");
    _ = @import("serial/explore.zig");
    _ = @import("serial/script.zig");
    _ = @import("serial/inbox.zig");
    _ = @import("serial/latency.zig");
    _ = @import("event/clock.zig");
    _ = @import("event/event.zig");
    _ = @import("event/merge.zig");
    _ = @import("serial/lane_test.zig");
    _ = @import("serial/recording_test.zig");
    _ = @import("serial/resting_test.zig");
    _ = @import("serial/context_test.zig");
    _ = @import("sync/sync_test.zig");
    _ = @import("check/explorer_test.zig");
    _ = @import("parallel/lane_test.zig");
    _ = @import("parallel/netpoll_test.zig");
    _ = @import("parallel/text.zig");
    _ = @import("parallel/procs.zig");
    _ = @import("python/run/peek.zig");
    _ = @import("python/host/foreign.zig");
    _ = @import("python/host/idents.zig");
    if (@import("builtin").os.tag == .linux) {
        _ = @import("os/posix.zig");
        _ = @import("parallel/preempt_linux.zig");
        _ = @import("os/imports_linux.zig");
        _ = @import("os/code_linux.zig");
    }
}
