//! Collects the core's unit tests: `zig build test`.
test {
    _ = @import("os/os.zig");
    _ = @import("os/os.zig").impl;
    _ = @import("os/descriptors.zig");
    _ = @import("os/handle.zig");
    _ = @import("arch/arch.zig");
    _ = @import("core/heap.zig");
    _ = @import("core/list.zig");
    _ = @import("core/waiters_test.zig");
    _ = @import("core/schema.zig");
    _ = @import("core/tunables.zig");
    _ = @import("sched/stack.zig");
    _ = @import("sched/g.zig");
    _ = @import("sched/timer.zig");
    _ = @import("sched/explore.zig");
    _ = @import("sched/script.zig");
    _ = @import("sched/inbox.zig");
    _ = @import("sched/latency.zig");
    _ = @import("event/event.zig");
    _ = @import("event/merge.zig");
    _ = @import("sched/lane_test.zig");
    _ = @import("sched/resting_test.zig");
    _ = @import("sched/context_test.zig");
    _ = @import("sync/sync_test.zig");
    _ = @import("check/explorer_test.zig");
    _ = @import("native/lane_test.zig");
    _ = @import("native/netpoll_test.zig");
    _ = @import("native/text.zig");
    _ = @import("native/procs.zig");
    _ = @import("python/peek.zig");
    _ = @import("python/foreign.zig");
    _ = @import("python/idents.zig");
    if (@import("builtin").os.tag == .linux) {
        _ = @import("os/posix.zig");
        _ = @import("native/preempt_linux.zig");
        _ = @import("os/imports_linux.zig");
        _ = @import("os/code_linux.zig");
    }
}
