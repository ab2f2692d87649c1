//! What other processes ask for: dumps, by SIGQUIT, the signal of `[debug] dump_signal`, `golibx
//! dump`; and by `golibx stats`, `golibx tune` and the like whatever golibx/control.py answers.
//!
//! A thread of its own waits for them (os/requests_*.zig), and asks the interpreter. If that does
//! not answer within some seconds, C code holds its lock, and the thread writes what it can read
//! without it (peek.zig).
//! A client that connects sends one line, `golibx 1 VERB` and what the verb needs, or nothing: that
//! means `dump`. What comes back is "+" and the answer, or "-" and why there is none; then the
//! connection ends. 1 is the version of all this.
//!
//! The thread never takes the interpreter's lock itself: a second thread does, the asker, which may
//! be left waiting for it; there is one at most.
//! `answer` belongs to both threads: the one that moves its state away from `asked` last frees it.
const std = @import("std");
const os = @import("../../os/os.zig");
const requests = os.requests;
const tunables = @import("../../core/tunables.zig");
const g_mod = @import("../../serial/g.zig");
const M = @import("../../serial/m.zig").M;
const foreign = @import("../host/foreign.zig");
const list = @import("../../parallel/list.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const native = @import("native.zig");
const peek = @import("peek.zig");
const standin = @import("../host/standin.zig");

const lane = &host.the_lane;
const gpa = host.gpa;

/// What the run's options say.
pub const Settings = struct {
    /// Take SIGQUIT.
    quit: bool = false,
    /// The number of another signal; 0: none.
    dump_signal: u32 = 0,
    /// Listen to the socket.
    control: bool = true,
};

/// How long the interpreter has for its answer: of a dump, which is wanted where something is
/// stuck; of counters, which can be read without it; and of what only it can do.
const patience_s = .{ .dump = 1, .stats = 2, .others = 5 };
/// Of a request, its end included.
const most_asked = 4096;
const greeting = "golibx 1 ";
/// A client that has sent nothing by then wants a dump.
const first_ms = 200;
const next_ms = 1000;
const quit_status = 2; // as in Go
/// More than these are only counted in a dump without the interpreter.
const most_shown = 1000;
const most_looked_at = 1 << 20;

var thread: ?os.Thread = null;

/// With the interpreter's lock. If something is missing here, the program runs all the same. False
/// if the signal for dumps is the program's own.
pub fn start(s: Settings) bool {
    peek.calibrate();
    if (!requests.open(s.control)) return true;
    thread = os.spawn(serve, null, .{ .signals = .blocked }) catch {
        requests.close();
        return true;
    };
    if (s.quit) _ = requests.takeSignal(requests.quit_signal, true);
    return s.dump_signal == 0 or requests.takeSignal(s.dump_signal, false);
}

/// With the interpreter's lock, which others get meanwhile: a dump may be on its way.
pub fn stop() void {
    const t = thread orelse return;
    thread = null;
    requests.stop();
    const state = py.PyEval_SaveThread();
    t.join();
    py.PyEval_RestoreThread(state.?);
    requests.close();
}

/// In the child of a fork.
pub fn forget() void {
    thread = null;
    asker_busy.store(false, .monotonic);
    requests.close();
}

fn serve(_: ?*anyopaque) void {
    while (true) switch (requests.wait()) {
        .stop => return,
        .signal => |s| {
            if (s.quit) os.writeStderr("SIGQUIT: quit\n\n");
            dump(stderr);
            if (s.quit) requests.exitProcess(quit_status);
        },
        .connection => |fd| {
            defer requests.hangUp(fd);
            requests.limitSends(fd);
            const pid = requests.mayAsk(fd) orelse {
                refuse(fd, "another user's process");
                continue;
            };
            var buffer: [most_asked]u8 = undefined;
            switch (requests.receiveLine(fd, &buffer, first_ms, next_ms)) {
                .none => answerDump(fd),
                .too_long => refuse(fd, std.fmt.comptimePrint(
                    "the request is longer than {d} bytes",
                    .{most_asked - 1},
                )),
                .text => |line| serveLine(fd, line, pid),
            }
        },
    };
}

fn serveLine(fd: i32, line: []const u8, pid: i32) void {
    const request = std.mem.cutPrefix(u8, line, greeting) orelse
        return refuse(fd, "not a request of golibx's, version 1: " ++
            "ask with the golibx that the process runs on");
    if (!std.unicode.utf8ValidateSlice(request)) return refuse(fd, "the request is not UTF-8");
    if (request.len == 0) return refuse(fd, "the request says nothing");
    if (std.mem.eql(u8, request, "dump")) return answerDump(fd);
    const is_stats = std.mem.eql(u8, request, "stats");
    const text = askInterpreter(.{
        .request = request,
        .pid = pid,
        .patience_s = if (is_stats) patience_s.stats else patience_s.others,
    }) orelse return if (is_stats) statsWithout(fd) else refuse(fd, std.fmt.comptimePrint(
        "the interpreter of the process has not answered for {d} s: C code holds its lock, or " ++
            "it is busy. What was asked may still be done",
        .{patience_s.others},
    ));
    defer gpa.free(text);
    write(fd, text);
}

fn answerDump(fd: i32) void {
    // The reader takes the first byte for: here it comes.
    if (requests.send(fd, "+")) dump(fd);
}

fn refuse(fd: i32, comptime why: []const u8) void {
    _ = requests.send(fd, "-" ++ why ++ "\n");
}

const stderr = -1;

fn write(fd: i32, bytes: []const u8) void {
    if (fd == stderr) os.writeStderr(bytes) else _ = requests.send(fd, bytes);
}

fn dump(fd: i32) void {
    const text = askInterpreter(.{}) orelse return dumpWithout(fd);
    defer gpa.free(text);
    write(fd, text);
}

// ---- with the interpreter ----

const Asked = struct {
    /// Empty: a dump.
    request: []const u8 = "",
    /// The process that asks.
    pid: i32 = 0,
    patience_s: u64 = patience_s.dump,
};

const Answer = struct {
    const State = enum(u8) { asked, answered, given_up };
    state: std.atomic.Value(State) = .init(.asked),
    note: os.Note = .{},
    text: ?[]u8 = null,
    // A copy: the thread that has asked may have gone.
    request: [most_asked]u8 = undefined,
    len: usize,
    pid: i32,
};

var asker_busy: std.atomic.Value(bool) = .init(false);

/// The text, from gpa; null if there is none.
fn askInterpreter(asked: Asked) ?[]u8 {
    if (asker_busy.swap(true, .acq_rel)) return null; // it still waits for the lock
    const answer = gpa.create(Answer) catch {
        asker_busy.store(false, .release);
        return null;
    };
    answer.* = .{ .len = asked.request.len, .pid = asked.pid };
    @memcpy(answer.request[0..asked.request.len], asked.request);
    const asker = os.spawn(ask, answer, .{ .signals = .blocked }) catch {
        gpa.destroy(answer);
        asker_busy.store(false, .release);
        return null;
    };
    asker.detach();
    const until = os.nanotime() + asked.patience_s * std.time.ns_per_s;
    while (answer.note.sleep(until -| os.nanotime()) == .interrupted) {}
    if (answer.state.cmpxchgStrong(.asked, .given_up, .acq_rel, .acquire) == null) return null;
    // `answered`, so that the asker will not look at it any more once it has rung.
    while (answer.note.sleep(null) == .interrupted) {}
    defer gpa.destroy(answer);
    return answer.text;
}

fn ask(raw: ?*anyopaque) void {
    const answer: *Answer = @ptrCast(@alignCast(raw.?));
    var state: ?*anyopaque = null;
    host.acquireAnew(&state);
    // No thread has use for it any more, and a change would come too late.
    const text = if (answer.state.load(.monotonic) == .given_up) null else makeText(answer);
    py.PyThreadState_Clear(@ptrCast(state.?));
    py.PyThreadState_DeleteCurrent();
    asker_busy.store(false, .release);
    answer.text = text;
    if (answer.state.cmpxchgStrong(.asked, .answered, .acq_rel, .acquire) != null) {
        if (text) |t| gpa.free(t);
        gpa.destroy(answer);
    } else answer.note.wake();
}

/// Whether a thread runs Python code for an answer, or waits for the lock to do so.
pub fn isAnswering() bool {
    return asker_busy.load(.acquire);
}

/// golibx.dump.report() or golibx.control.answer(request, pid), copied.
fn makeText(answer: *const Answer) ?[]u8 {
    defer py.PyErr_Clear();
    const text = (if (answer.len == 0) callReport() else callAnswer(answer)) orelse return null;
    defer py.decref(text);
    var length: py.Ssize = 0;
    const bytes = py.PyUnicode_AsUTF8AndSize(text, &length) orelse return null;
    return gpa.dupe(u8, bytes[0..@intCast(length)]) catch null;
}

fn callReport() ?*py.Object {
    const function = py.importFrom("golibx.dump", "report") orelse return null;
    defer py.decref(function);
    return py.call(function, &.{});
}

fn callAnswer(answer: *const Answer) ?*py.Object {
    const function = py.importFrom("golibx.control", "answer") orelse return null;
    defer py.decref(function);
    const request = py.PyUnicode_FromStringAndSize(&answer.request, @intCast(answer.len)) orelse
        return null;
    defer py.decref(request);
    const pid = py.PyLong_FromLongLong(answer.pid) orelse return null;
    defer py.decref(pid);
    return py.call(function, &.{ request, pid });
}

// ---- without it ----

/// As golibx.control answers it, as far as it can be told. No thread changes the lane meanwhile, or
/// it is as it was a moment ago.
fn statsWithout(fd: i32) void {
    var out: Out = .{ .fd = fd };
    defer out.flush();
    out.print("+{{\"interpreter\": false, \"stats\": {{\"goroutines\": {d}, \"runq\": {d}", .{
        @atomicLoad(usize, &lane.user_count, .monotonic),
        @atomicLoad(usize, &lane.runq.len, .monotonic),
    });
    const Counters = @TypeOf(lane.counters);
    inline for (@typeInfo(Counters).@"struct".field_names) |name| {
        const counter = &@field(lane.counters, name);
        const is_plain = @TypeOf(counter) == *u64;
        out.print(", \"{s}\": {d}", .{
            name,
            if (is_plain) @atomicLoad(u64, counter, .monotonic) else counter.load(.monotonic),
        });
    }
    out.print("}}, \"tunables\": {{", .{});
    inline for (tunables.keys, 0..) |key, i| {
        const comma = if (i == 0) "" else ", ";
        out.print("{s}\"{s}\": {d}", .{ comma, key.path, tunables.current.at(i).get() });
    }
    out.print("}}}}\n", .{});
}

/// Collects lines, so that a dump is few writes.
const Out = struct {
    fd: i32,
    buffer: [4096]u8 = undefined,
    len: usize = 0,

    fn print(o: *Out, comptime format: []const u8, args: anytype) void {
        if (o.len > o.buffer.len - 1024) o.flush();
        const line = std.fmt.bufPrint(o.buffer[o.len..], format, args) catch return;
        o.len += line.len;
    }

    fn flush(o: *Out) void {
        write(o.fd, o.buffer[0..o.len]);
        o.len = 0;
    }
};

fn dumpWithout(fd: i32) void {
    var out: Out = .{ .fd = fd };
    defer out.flush();
    out.print("golibx: the interpreter has not answered for {d} s: " ++
        "C code holds its lock, or the process is stopped at a\n" ++
        "breakpoint. What follows was read without it, and may be out of date.\n\n", .{
        patience_s.dump,
    });
    var shown: usize = 0;
    // The newest come first. PyGs are never freed; the list may change under way, and then lead
    // anywhere in itself.
    var goroutines: [most_shown]*g_mod.G = undefined;
    var it = @atomicLoad(?*g_mod.G, &lane.all_g, .acquire);
    while (it) |g| : (it = @atomicLoad(?*g_mod.G, &g.all_next, .monotonic)) {
        if (@atomicLoad(bool, &g.system, .monotonic)) continue;
        goroutines[shown % most_shown] = g;
        shown += 1;
        if (shown == most_looked_at) break;
    }
    // The oldest that there is room for.
    for (0..@min(shown, most_shown)) |i|
        printGoroutine(&out, goroutines[(shown - 1 - i) % most_shown]);
    if (shown > most_shown) out.print("… and {d} goroutines more\n\n", .{shown - most_shown});
    printThreads(&out);
    var natives: list.Iterator = .{};
    shown = 0;
    while (natives.next()) |entry| {
        shown += 1;
        if (shown <= most_shown) printNative(&out, entry);
    }
    if (shown > most_shown)
        out.print("… and {d} native goroutines more\n\n", .{shown - most_shown});
}

/// Those that wait, the oldest wait first.
fn printThreads(out: *Out) void {
    var threads: [most_shown]standin.Seen = undefined;
    var count: usize = 0;
    var waits: standin.Waits = .init();
    while (waits.next()) |seen| {
        threads[count % most_shown] = seen;
        count += 1;
        if (count == most_looked_at) break;
    }
    for (0..@min(count, most_shown)) |i| printThread(out, &threads[(count - 1 - i) % most_shown]);
    if (count > most_shown) out.print("… and {d} threads more\n\n", .{count - most_shown});
}

fn printThread(out: *Out, seen: *const standin.Seen) void {
    const waits = seen.status == .parking;
    out.print("thread {d} [{s}", .{ seen.number, if (waits) seen.reason.text() else "runnable" });
    if (waits) printMinutes(out, seen.parked_at);
    out.print("]:\n", .{});
    printFrames(out, seen.state);
    if (waits) printWait(out, seen.waiting_on, seen.waiting_count);
    out.print("\n", .{});
}

fn printGoroutine(out: *Out, g: *g_mod.G) void {
    const p = goroutine.of(g);
    const status = @atomicLoad(g_mod.Status, &g.status, .monotonic);
    if (status == .dead) return;
    const reason = @atomicLoad(g_mod.WaitReason, &g.reason, .monotonic);
    out.print("goroutine {d} [{s}", .{ @atomicLoad(u64, &g.id, .monotonic), switch (status) {
        .idle, .runnable, .notified => "runnable",
        .running => "running",
        .syscall => "syscall",
        .parking, .waiting => reason.text(),
        .dead => unreachable,
    } });
    if (status == .waiting) printMinutes(out, @atomicLoad(u64, &g.parked_at, .monotonic));
    const locked = @atomicLoad(u32, &g.lock_count, .monotonic) > 0;
    if (locked) out.print(", locked to thread", .{});
    if (!locked and @atomicLoad(?*M, &g.locked_m, .monotonic) != null)
        if (@atomicLoad(?*const foreign.Module, &p.kept_by, .monotonic)) |module|
            out.print(", keeps its thread for {s}", .{module.name()});
    const state = @atomicLoad(usize, @as(*const usize, @ptrCast(&p.state)), .monotonic);
    // In a call that blocks with the lock held, or in one that lost its P before it got the lock
    // back.
    if ((status == .running or status == .syscall) and host.hasInterpreter(state))
        out.print(", has the interpreter", .{});
    out.print("]:\n", .{});
    printFrames(out, state);
    if (status == .waiting) printWait(
        out,
        @atomicLoad(usize, @as(*const usize, @ptrCast(&g.waiting_on)), .monotonic),
        @atomicLoad(u32, &g.waiting_count, .monotonic),
    );
    const handle = @atomicLoad(usize, @as(*const usize, @ptrCast(&p.handle)), .monotonic);
    const Handle = goroutine.Handle;
    var lasti: c_int = 0;
    const code = peek.word(handle +% @offsetOf(Handle, "code")) orelse 0;
    if (code != 0 and os.peek(handle +% @offsetOf(Handle, "lasti"), std.mem.asBytes(&lasti))) {
        if (peek.placeOf(code, @intCast(@max(0, lasti)))) |place| {
            const parent = @atomicLoad(u64, &p.parent, .monotonic);
            out.print("    created ", .{});
            if (parent != 0) out.print("by goroutine {d} ", .{parent});
            out.print("at {s}:{d}\n", .{ place.file.slice(), place.line });
        }
    }
    out.print("\n", .{});
}

fn printMinutes(out: *Out, parked_at: u64) void {
    const minutes = (os.nanotime() -| parked_at) / std.time.ns_per_min;
    if (minutes > 0) out.print(", {d} minute{s}", .{ minutes, if (minutes > 1) "s" else "" });
}

fn printFrames(out: *Out, state: usize) void {
    if (state == 0) return;
    var frames: peek.Frames = .of(state);
    while (frames.next()) |place| printPlace(out, &place);
}

/// The object `on` that is waited for; of a select's only that it has several.
fn printWait(out: *Out, on: usize, cases: u32) void {
    if (on == 0) return;
    if (cases > 0) return out.print("    waits on {d} cases\n", .{cases});
    const name = peek.typeName(on);
    out.print("    waits on <{s} 0x{x}>\n", .{ name.slice(), on });
}

fn printPlace(out: *Out, place: *const peek.Place) void {
    out.print("    {s} at {s}:{d}\n", .{ place.name.slice(), place.file.slice(), place.line });
}

fn printNative(out: *Out, entry: list.Entry) void {
    var name: [256]u8 = undefined;
    out.print("native goroutine {d} [{s}{s}]:\n    {s}\n\n", .{
        entry.id,
        entry.state(),
        if (entry.locked) ", locked to thread" else "",
        native.functionName(entry, &name),
    });
}
