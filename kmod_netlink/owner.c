// SPDX-License-Identifier: GPL-2.0
/*
 * Owners: the socket that a link ends with, and what others may do to the link meanwhile.
 */
#include <net/netlink.h>

#include "compat/netlink.h"
#include "owner.h"
#include "restore.h"

static void set_portid(struct ipttrace_link *link, u32 portid)
{
	spin_lock(&ipttrace_links_index);
	link->owner_portid = portid;
	spin_unlock(&ipttrace_links_index);
}

/**
 * ipttrace_link_own - make the current process the owner of a link
 * @link: the link
 * @portid: the owner's socket, or 0: the process made the link, and does not own it
 */
void ipttrace_link_own(struct ipttrace_link *link, u32 portid)
{
	lockdep_assert_held(&ipttrace_lock);
	set_portid(link, portid);
	link->owner_pid = task_tgid_nr(current);
	get_task_comm(link->owner_comm, current);
}

/* True if a socket other than that of the requester owns the link. */
static bool owned_by_another(const struct ipttrace_link *link,
			     const struct ipttrace_requester *requester)
{
	return link->owner_portid && link->owner_portid != requester->portid;
}

/**
 * ipttrace_link_forces - check whether only force permits to change a link
 * @link: the link
 * @requester: who asks for it
 */
bool ipttrace_link_forces(const struct ipttrace_link *link,
			  const struct ipttrace_requester *requester)
{
	lockdep_assert_held(&ipttrace_lock);
	return link->flags & IPTTRACE_LINK_FLAG_EXCLUSIVE &&
	       owned_by_another(link, requester);
}

/**
 * ipttrace_link_permit - check that a link may be swapped, rolled back, detached or released
 * @link: the link
 * @requester: who asks for it
 * @forced: set to true if only force permits it, else to false
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * Return: 0, or -EBUSY if another socket owns the link exclusively, or if links are being restored.
 */
int ipttrace_link_permit(const struct ipttrace_link *link,
			 const struct ipttrace_requester *requester,
			 bool *forced, const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	*forced = ipttrace_link_forces(link, requester);
	if (!*forced || requester->force)
		return ipttrace_restore_check_change(link, requester, attr,
						     extack);
	IPTTRACE_SET_ERR_MSG_ATTR(extack, attr,
				  "another process owns the link exclusively",
				  "process %u (%s) owns the link exclusively",
				  link->owner_pid, link->owner_comm);
	return -EBUSY;
}

/**
 * ipttrace_link_adopt - give a link an owner
 * @link: the link
 * @requester: the owner from now on
 * @flags: IPTTRACE_LINK_FLAG_EXCLUSIVE or 0
 * @forced: set to true if only force takes it from its owner, else to false
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * Return: 0, also if it is the owner's already; -EBUSY if another socket owns it, or if links are
 * being restored.
 */
int ipttrace_link_adopt(struct ipttrace_link *link,
			const struct ipttrace_requester *requester, u32 flags,
			bool *forced, const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	*forced = owned_by_another(link, requester);
	if (*forced && !requester->force) {
		IPTTRACE_SET_ERR_MSG_ATTR(extack, attr,
					  "another process owns the link",
					  "process %u (%s) owns the link",
					  link->owner_pid, link->owner_comm);
		return -EBUSY;
	}
	if (ipttrace_restore_check_change(link, requester, attr, extack))
		return -EBUSY;
	link->flags &=
		~(IPTTRACE_LINK_FLAG_PERSISTENT | IPTTRACE_LINK_FLAG_EXCLUSIVE);
	link->flags |= flags;
	ipttrace_link_own(link, requester->portid);
	ipttrace_links_sequence++;
	return 0;
}

/**
 * ipttrace_link_release - make a link persistent: it belongs to nobody
 * @link: the link; may be persistent already
 *
 * The process that owned it stays noted in the link.
 */
void ipttrace_link_release(struct ipttrace_link *link)
{
	lockdep_assert_held(&ipttrace_lock);
	link->flags &= ~IPTTRACE_LINK_FLAG_EXCLUSIVE;
	link->flags |= IPTTRACE_LINK_FLAG_PERSISTENT;
	set_portid(link, 0);
	ipttrace_links_sequence++;
}
