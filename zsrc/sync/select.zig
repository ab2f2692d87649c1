//! select: waits until one of several cases can go on, and does that one, with the semantics of
//! Go's runtime/select.go.
//!
//! What a case is of is for the layer above to say: `Source`, a tagged union of channels and
//! whatever else can be waited for. Each member has
//!  - `poll`: does what the case is about, if that can be done at once;
//!  - `enqueue`: queues the goroutine, between the lane's `prepare` and `park`. Whoever claims it
//!    then has `G.fired` point into the case;
//!  - `dequeue`: leaves the queue, after a wait that another case ended, or none;
//!  - `finish`: the wait has ended with this case: what came of it. `would_block` has the select
//!    look and wait again.
//! A poll and the queueing that follows happen at one instant, under the lane's lock. Where
//! something beside that lock protects a source, the `Guard` of the select holds it meanwhile; its
//! `reserve` says whether there is the memory to wait.
const std = @import("std");
const g_mod = @import("../sched/g.zig");
const Outcome = @import("chan.zig").Outcome;
const G = g_mod.G;

/// A case of a nil channel, as Go would say: it never can go on.
pub const Never = struct {
    pub inline fn poll(_: *Never) Outcome {
        return .would_block;
    }
    pub inline fn enqueue(_: *Never, _: *G) void {}
    pub inline fn dequeue(_: *Never) void {}
    pub inline fn finish(_: *Never, _: g_mod.Wake) Outcome {
        return .would_block;
    }
};

pub fn Select(comptime Lane: type, comptime Source: type, comptime Guard: type) type {
    return struct {
        comptime {
            for (@typeInfo(Source).@"union".field_types) |Member| {
                for ([_][]const u8{ "poll", "enqueue", "dequeue", "finish" }) |name| {
                    if (!@hasDecl(Member, name)) @compileError(@typeName(Member) ++ " lacks " ++ name);
                }
            }
        }

        /// Which case ended the select; `index` means nothing if the outcome is a time-out or an
        /// interruption.
        pub const Selected = struct { index: usize, outcome: Outcome };

        /// Looks at the cases in the order given, a random one, and does the first that can be
        /// done.
        pub inline fn poll(cases: []Source, order: []const u16, guard: *Guard) ?Selected {
            guard.hold();
            defer guard.release();
            return look(cases, order);
        }

        inline fn look(cases: []Source, order: []const u16) ?Selected {
            for (order) |at| {
                const outcome = switch (cases[at]) {
                    inline else => |*source| source.poll(),
                };
                if (outcome != .would_block) return .{ .index = at, .outcome = outcome };
            }
            return null;
        }

        /// As `poll`, and parks until a case can be done, or until `deadline`.
        pub fn wait(
            lane: *Lane,
            g: *G,
            cases: []Source,
            order: []const u16,
            guard: *Guard,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) Selected {
            while (true) {
                guard.hold();
                if (look(cases, order)) |selected| {
                    guard.release();
                    return selected;
                }
                if (!guard.reserve()) {
                    guard.release();
                    return .{ .index = 0, .outcome = .interrupted };
                }
                lane.prepare(g);
                guard.enlist(g);
                for (cases) |*case| switch (case.*) {
                    inline else => |*source| source.enqueue(g),
                };
                guard.release();
                const wake = lane.park(g, reason, deadline);
                guard.resign(g);
                const fired: ?usize = switch (wake) {
                    .ready, .closed => (@intFromPtr(g.fired.?) - @intFromPtr(cases.ptr)) / @sizeOf(Source),
                    .timeout, .interrupted => null,
                };
                for (cases, 0..) |*case, i| if (fired != i) switch (case.*) {
                    inline else => |*source| source.dequeue(),
                };
                const index = fired orelse return .{
                    .index = 0,
                    .outcome = if (wake == .timeout) .timeout else .interrupted,
                };
                const outcome = switch (cases[index]) {
                    inline else => |*source| source.finish(wake),
                };
                if (outcome != .would_block) return .{ .index = index, .outcome = outcome };
            }
        }
    };
}
