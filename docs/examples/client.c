// SPDX-License-Identifier: GPL-2.0
/*
 * A client of the module in C: libmnl for netlink, libbpf to open a pinned program.
 *
 *	cc -Wall $(ipttctl cflags | grep -o -- '-I[^ ]*') client.c -o client -lmnl -lbpf
 *	./client attach /sys/fs/bpf/mine	# at nf:inet4/output, for good
 *	./client swap 1 /sys/fs/bpf/mine	# only if nobody else swaps it meanwhile
 *	./client links
 *	./client events 5			# the next five events
 *	./client detach 1
 *
 * docs/protocol.md describes the messages, and ipttrace_netlink.h has their numbers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/netfilter.h>

#include "ipttrace_netlink.h"

/* a batch of events is up to 32 KiB, and so may be a part of a dump */
static char buffer[65536];

struct client {
	struct mnl_socket *socket;
	uint16_t family;
	uint32_t events_group;
	uint32_t sequence;
};

static void fail(const char *format, ...)
{
	va_list arguments;

	fputs("client: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* --- requests ------------------------------------------------------------------------------ */

static struct nlmsghdr *request(struct client *client, uint16_t family,
				uint8_t command, uint16_t flags)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct genlmsghdr *generic;

	header->nlmsg_type = family;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	header->nlmsg_seq = ++client->sequence;
	generic = mnl_nlmsg_put_extra_header(header, sizeof(*generic));
	generic->cmd = command;
	generic->version = IPTTRACE_FAMILY_VERSION;
	return header;
}

/* The sentence with which the module says why it refuses something, or the errno's. */
static const char *refusal(const struct nlmsghdr *header)
{
	const struct nlmsgerr *error = mnl_nlmsg_get_payload(header);
	size_t offset = sizeof(*error);
	const struct nlattr *attr;

	if (!(header->nlmsg_flags & NLM_F_CAPPED))
		offset += error->msg.nlmsg_len - sizeof(error->msg);
	if (header->nlmsg_flags & NLM_F_ACK_TLVS)
		mnl_attr_for_each(attr, header, offset) if (
			mnl_attr_get_type(attr) ==
			NLMSGERR_ATTR_MSG) return mnl_attr_get_str(attr);
	return strerror(-error->error);
}

/* Handles the answers to the last request, until its end. @what was asked for. */
static void answers(struct client *client, const char *what, mnl_cb_t handle,
		    void *data)
{
	unsigned int port = mnl_socket_get_portid(client->socket);
	int status = MNL_CB_OK;

	while (status > MNL_CB_STOP) {
		const struct nlmsghdr *header = (void *)buffer;
		ssize_t size = mnl_socket_recvfrom(client->socket, buffer,
						   sizeof(buffer));

		if (size < 0)
			fail("%s: cannot receive: %s", what, strerror(errno));
		status = mnl_cb_run(buffer, size, client->sequence, port,
				    handle, data);
		if (status < 0 && header->nlmsg_type == NLMSG_ERROR)
			fail("%s: %s", what, refusal(header));
		if (status < 0)
			fail("%s: %s", what, strerror(errno));
	}
}

/* Sends a request and handles what comes back. */
static void ask(struct client *client, const char *what,
		struct nlmsghdr *header, mnl_cb_t handle, void *data)
{
	if (mnl_socket_sendto(client->socket, header, header->nlmsg_len) < 0)
		fail("%s: cannot send: %s", what, strerror(errno));
	answers(client, what, handle, data);
}

/* Collects attributes by their type, those of types below @count. */
static void collect(const struct nlattr **found, unsigned int count,
		    const struct nlattr *attr)
{
	if (mnl_attr_get_type(attr) < count)
		found[mnl_attr_get_type(attr)] = attr;
}

static void attributes(const struct nlattr **found, unsigned int count,
		       const struct nlmsghdr *header)
{
	const struct nlattr *attr;

	memset(found, 0, count * sizeof(*found));
	mnl_attr_for_each(attr, header, sizeof(struct genlmsghdr))
		collect(found, count, attr);
}

static void nested(const struct nlattr **found, unsigned int count,
		   const struct nlattr *nest)
{
	const struct nlattr *attr;

	memset(found, 0, count * sizeof(*found));
	mnl_attr_for_each_nested(attr, nest) collect(found, count, attr);
}

/* --- the family ---------------------------------------------------------------------------- */

static int family_found(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *found[CTRL_ATTR_MAX + 1];
	const struct nlattr *group[CTRL_ATTR_MCAST_GRP_MAX + 1];
	struct client *client = data;
	const struct nlattr *attr;

	attributes(found, CTRL_ATTR_MAX + 1, header);
	client->family = mnl_attr_get_u16(found[CTRL_ATTR_FAMILY_ID]);
	mnl_attr_for_each_nested(attr, found[CTRL_ATTR_MCAST_GROUPS])
	{
		nested(group, CTRL_ATTR_MCAST_GRP_MAX + 1, attr);
		if (!strcmp(mnl_attr_get_str(group[CTRL_ATTR_MCAST_GRP_NAME]),
			    IPTTRACE_GROUP_EVENTS))
			client->events_group =
				mnl_attr_get_u32(group[CTRL_ATTR_MCAST_GRP_ID]);
	}
	return MNL_CB_OK;
}

/* Another minor version will do: it has more or fewer attributes, and the same meaning. */
static int version_told(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *found[IPTTRACE_A_MAX + 1];
	const struct nlattr *major;

	(void)data;
	attributes(found, IPTTRACE_A_MAX + 1, header);
	major = found[IPTTRACE_A_PROTOCOL_MAJOR];
	if (!major || mnl_attr_get_u32(major) != IPTTRACE_FAMILY_VERSION)
		fail("the module speaks another protocol: compile this with its header");
	return MNL_CB_OK;
}

static void connect_to_module(struct client *client)
{
	struct nlmsghdr *header;
	int on = 1;

	client->socket = mnl_socket_open(NETLINK_GENERIC);
	if (!client->socket ||
	    mnl_socket_bind(client->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		fail("no netlink socket: %s", strerror(errno));
	/* refusals come with a sentence */
	mnl_socket_setsockopt(client->socket, NETLINK_EXT_ACK, &on, sizeof(on));
	mnl_socket_setsockopt(client->socket, NETLINK_CAP_ACK, &on, sizeof(on));

	header = request(client, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
	mnl_attr_put_strz(header, CTRL_ATTR_FAMILY_NAME, IPTTRACE_FAMILY_NAME);
	ask(client, "the module ipttrace", header, family_found, client);
	header = request(client, client->family, IPTTRACE_CMD_STATS, NLM_F_ACK);
	ask(client, "the module's version", header, version_told, NULL);
}

/* --- links --------------------------------------------------------------------------------- */

static void print_programs(const struct nlattr *set)
{
	const struct nlattr *found[IPTTRACE_A_PROGRAM_MAX + 1];
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, set)
	{
		if (mnl_attr_get_type(attr) != IPTTRACE_A_PROGRAM_SET_PROGRAM)
			continue;
		nested(found, IPTTRACE_A_PROGRAM_MAX + 1, attr);
		printf(" slot %u program %u (%s)",
		       mnl_attr_get_u32(found[IPTTRACE_A_PROGRAM_SLOT]),
		       mnl_attr_get_u32(found[IPTTRACE_A_PROGRAM_ID]),
		       mnl_attr_get_str(found[IPTTRACE_A_PROGRAM_NAME]));
	}
}

/* Prints a link. If @data is given, it gets the link's generation. */
static int link_told(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *found[IPTTRACE_A_MAX + 1];
	uint32_t *generation = data;

	attributes(found, IPTTRACE_A_MAX + 1, header);
	/* a dump begins with the number of its last change, without a link */
	if (!found[IPTTRACE_A_LINK])
		return MNL_CB_OK;
	if (generation) {
		*generation = mnl_attr_get_u32(found[IPTTRACE_A_GENERATION]);
		return MNL_CB_OK;
	}
	printf("link %u generation %u",
	       mnl_attr_get_u32(found[IPTTRACE_A_LINK]),
	       mnl_attr_get_u32(found[IPTTRACE_A_GENERATION]));
	print_programs(found[IPTTRACE_A_PROGRAMS]);
	putchar('\n');
	return MNL_CB_OK;
}

/* Adds a program set with one program, that which is pinned at @path. */
static void put_program(struct nlmsghdr *header, const char *path)
{
	struct nlattr *set, *program;
	int fd = bpf_obj_get(path);

	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	set = mnl_attr_nest_start(header, IPTTRACE_A_PROGRAMS);
	program = mnl_attr_nest_start(header, IPTTRACE_A_PROGRAM_SET_PROGRAM);
	mnl_attr_put_u32(header, IPTTRACE_A_PROGRAM_SLOT, IPTTRACE_SLOT_PACKET);
	mnl_attr_put_u32(header, IPTTRACE_A_PROGRAM_FD, fd);
	mnl_attr_nest_end(header, program);
	mnl_attr_nest_end(header, set);
}

static void attach(struct client *client, const char *path)
{
	struct nlmsghdr *header =
		request(client, client->family, IPTTRACE_CMD_ATTACH, NLM_F_ACK);

	mnl_attr_put_u32(header, IPTTRACE_A_HOOK, IPTTRACE_HOOK_NF);
	mnl_attr_put_u32(header, IPTTRACE_A_FAMILY, NFPROTO_IPV4);
	mnl_attr_put_u32(header, IPTTRACE_A_HOOKNUM, NF_INET_LOCAL_OUT);
	mnl_attr_put_u32(header, IPTTRACE_A_PRIORITY, 0);
	/* otherwise the link would end with our socket */
	mnl_attr_put_u32(header, IPTTRACE_A_FLAGS,
			 IPTTRACE_LINK_FLAG_PERSISTENT);
	put_program(header, path);
	ask(client, "attach", header, link_told, NULL);
}

static void swap(struct client *client, uint32_t link, const char *path)
{
	uint32_t generation = 0;
	struct nlmsghdr *header;

	header = request(client, client->family, IPTTRACE_CMD_GET, NLM_F_ACK);
	mnl_attr_put_u32(header, IPTTRACE_A_LINK, link);
	ask(client, "swap", header, link_told, &generation);

	header = request(client, client->family, IPTTRACE_CMD_SWAP, NLM_F_ACK);
	mnl_attr_put_u32(header, IPTTRACE_A_LINK, link);
	mnl_attr_put_u32(header, IPTTRACE_A_EXPECT_GENERATION, generation);
	put_program(header, path);
	ask(client, "swap", header, link_told, NULL);
}

static void detach(struct client *client, uint32_t link)
{
	struct nlmsghdr *header =
		request(client, client->family, IPTTRACE_CMD_DETACH, NLM_F_ACK);

	mnl_attr_put_u32(header, IPTTRACE_A_LINK, link);
	ask(client, "detach", header, link_told, NULL);
}

static void list(struct client *client)
{
	struct nlmsghdr *header =
		request(client, client->family, IPTTRACE_CMD_GET, NLM_F_DUMP);

	ask(client, "links", header, link_told, NULL);
}

/* --- events -------------------------------------------------------------------------------- */

static void print_event(uint32_t cpu, uint64_t sequence,
			const struct ipttrace_event *event)
{
	int family = event->ethertype == 0x86dd ? AF_INET6 : AF_INET;
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];

	inet_ntop(family, event->saddr, from, sizeof(from));
	inet_ntop(family, event->daddr, to, sizeof(to));
	printf("cpu %u event %llu link %u %s -> %s protocol %u verdict %u\n",
	       cpu, (unsigned long long)sequence, event->link, from, to,
	       event->protocol, event->verdict);
}

/* An event of a newer module is longer than ours, one of an older module may be shorter. */
static struct ipttrace_event event_of(const struct nlattr *attr)
{
	size_t size = mnl_attr_get_payload_len(attr);
	struct ipttrace_event event = {};

	memcpy(&event, mnl_attr_get_payload(attr),
	       size < sizeof(event) ? size : sizeof(event));
	return event;
}

/*
 * Prints a batch of events: one header, and events of one CPU with consecutive numbers. A gap
 * between two batches of a CPU are events that were lost.
 */
static int events_told(const struct nlmsghdr *header, void *data)
{
	const struct genlmsghdr *generic = mnl_nlmsg_get_payload(header);
	const struct ipttrace_batch *batch = NULL;
	unsigned long *left = data;
	struct ipttrace_event event;
	const struct nlattr *attr;
	uint64_t sequence = 0;

	if (generic->cmd != IPTTRACE_CMD_EVENTS)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, header, sizeof(*generic))
	{
		if (mnl_attr_get_type(attr) == IPTTRACE_A_BATCH) {
			batch = mnl_attr_get_payload(attr);
			sequence = batch->sequence;
		}
		if (mnl_attr_get_type(attr) != IPTTRACE_A_EVENT || !*left)
			continue;
		event = event_of(attr);
		print_event(batch->cpu, sequence++, &event);
		--*left;
	}
	fflush(stdout);
	return *left ? MNL_CB_OK : MNL_CB_STOP;
}

static void follow(struct client *client, unsigned long count)
{
	mnl_socket_setsockopt(client->socket, NETLINK_ADD_MEMBERSHIP,
			      &client->events_group,
			      sizeof(client->events_group));
	puts("listening");
	fflush(stdout);
	/* notifications have no sequence number of ours */
	client->sequence = 0;
	if (count)
		answers(client, "events", events_told, &count);
}

/* ------------------------------------------------------------------------------------------- */

static uint32_t parse_id(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value > UINT32_MAX)
		fail("'%s' is no number", text);
	return value;
}

int main(int count, char **words)
{
	struct client client = {};
	const char *verb = count > 1 ? words[1] : "";

	connect_to_module(&client);
	if (!strcmp(verb, "attach") && count == 3)
		attach(&client, words[2]);
	else if (!strcmp(verb, "swap") && count == 4)
		swap(&client, parse_id(words[2]), words[3]);
	else if (!strcmp(verb, "detach") && count == 3)
		detach(&client, parse_id(words[2]));
	else if (!strcmp(verb, "links") && count == 2)
		list(&client);
	else if (!strcmp(verb, "events") && count == 3)
		follow(&client, parse_id(words[2]));
	else
		fail("usage: attach PIN | swap LINK PIN | detach LINK | links | events COUNT");
	mnl_socket_close(client.socket);
	return 0;
}
