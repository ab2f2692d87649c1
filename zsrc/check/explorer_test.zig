//! The explorer's own tests: the models of known algorithms, and what a model can do wrong.
const std = @import("std");
const check = @import("explorer.zig");
const all = @import("models/all.zig");

test {
    _ = @import("shrink.zig");
}

test "known algorithms pass, and their bugs are found and repeat" {
    const gpa = std.testing.allocator;
    inline for (all.of_the_explorer) |entry| {
        var report = try check.explore(gpa, entry.Model(check.Env(.{})), entry.options);
        defer report.deinit();
        try std.testing.expectEqual(null, report.failure);
        inline for (entry.plants) |plant| {
            const Model = entry.Model(check.Env(.{ .planted = plant.bug }));
            try expectFailure(Model, entry.options, plant.expects);
        }
    }
}

fn expectFailure(comptime Model: type, options: check.Options, message: []const u8) !void {
    const gpa = std.testing.allocator;
    var report = try check.explore(gpa, Model, options);
    defer report.deinit();
    const failure = report.failure orelse return error.NotFound;
    if (std.mem.indexOf(u8, failure.message, message) == null) {
        std.debug.print("{s}, expected {s}\n", .{ failure.message, message });
        return error.AnotherFailure;
    }
    var again = options;
    again.schedule = failure.schedule;
    var replayed = try check.explore(gpa, Model, again);
    defer replayed.deinit();
    try std.testing.expectEqualStrings(failure.message, replayed.failure.?.message);
    try std.testing.expectEqualStrings(failure.trace, replayed.failure.?.trace);
    try std.testing.expectEqual(1, replayed.executions);
}

const Sim = check.Env(.{});

test "a thread that waits for nobody is a livelock" {
    const Model = struct {
        flag: Sim.Atomic(bool) = .init(false),
        pub const threads = .{ .{ "a", wait }, .{ "b", wait } };
        fn wait(m: *@This()) void {
            while (!m.flag.load(.acquire)) Sim.spin();
        }
    };
    try expectFailure(Model, .{ .max_steps = 200 }, "livelock");
}

test "two that spin let the third one go on" {
    const Model = struct {
        flag: Sim.Atomic(bool) = .init(false),
        pub const threads = .{ .{ "a", wait }, .{ "b", wait }, .{ "c", go } };
        fn wait(m: *@This()) void {
            while (!m.flag.load(.acquire)) Sim.spin();
        }
        fn go(m: *@This()) void {
            Sim.yieldPoint();
            m.flag.store(true, .release);
        }
    };
    const options: check.Options = .{ .delays = 1, .random_runs = 0 };
    var report = try check.explore(std.testing.allocator, Model, options);
    defer report.deinit();
    try std.testing.expectEqual(null, report.failure);
    try std.testing.expect(report.longest < 60);
}

test "a lock that nobody holds cannot be let go" {
    const Model = struct {
        lock: Sim.Lock = .{},
        pub const threads = .{.{ "a", run }};
        fn run(m: *@This()) void {
            if (m.lock.tryLock()) m.lock.unlock();
            m.lock.unlock();
        }
    };
    try expectFailure(Model, .{}, "that nobody holds");
}

test "a model that decides by itself is told so" {
    const Model = struct {
        var calls: u32 = 0;
        flag: Sim.Atomic(u32) = .init(0),
        pub const threads = .{ .{ "a", run }, .{ "b", run } };
        fn run(m: *@This()) void {
            calls += 1;
            for (0..calls / 2 % 2 + 1) |_| _ = m.flag.fetchAdd(1, .monotonic);
        }
    };
    var report = try check.explore(std.testing.allocator, Model, .{ .random_runs = 0 });
    defer report.deinit();
    const expected = "the model decides something by itself";
    try std.testing.expect(std.mem.startsWith(u8, report.failure.?.message, expected));
}

test "random runs find what takes more preemptions than the bound, and it is made small" {
    const Model = struct {
        turn: Sim.Atomic(u32) = .init(0),
        pub const threads = .{ .{ "even", even }, .{ "odd", odd } };
        const rounds = 5;
        fn even(m: *@This()) void {
            for (0..rounds) |i| {
                if (m.turn.load(.acquire) == 2 * i) m.turn.store(@intCast(2 * i + 1), .release);
            }
        }
        fn odd(m: *@This()) void {
            for (0..rounds) |i| {
                if (m.turn.load(.acquire) == 2 * i + 1) m.turn.store(@intCast(2 * i + 2), .release);
            }
        }
        pub fn end(m: *@This()) void {
            check.expect(m.turn.raw < 2 * rounds - 1, "they alternate");
        }
    };
    const gpa = std.testing.allocator;
    var report = try check.explore(gpa, Model, .{ .preemptions = 1, .random_runs = 100_000 });
    defer report.deinit();
    const failure = report.failure.?;
    try std.testing.expect(failure.seed != null);
    try std.testing.expect(failure.preemptions <= 2 * 5);
}

test "every order is seen" {
    const Model = struct {
        order: [6]u32 = undefined,
        next: u32 = 0,
        pub const threads = .{ .{ "a", run }, .{ "b", run }, .{ "c", run } };
        var seen: std.AutoHashMapUnmanaged([6]u32, void) = .empty;

        fn run(m: *@This()) void {
            for (0..2) |_| {
                Sim.yieldPoint();
                m.order[m.next] = Sim.self();
                m.next += 1;
            }
        }
        pub fn end(m: *@This()) void {
            seen.put(std.testing.allocator, m.order, {}) catch @panic("out of memory");
        }
    };
    defer Model.seen.deinit(std.testing.allocator);
    var report = try check.explore(std.testing.allocator, Model, .{ .preemptions = 9 });
    defer report.deinit();
    try std.testing.expectEqual(.all, std.meta.activeTag(report.coverage));
    try std.testing.expectEqual(90, Model.seen.count()); // 6! / (2! 2! 2!)
}
