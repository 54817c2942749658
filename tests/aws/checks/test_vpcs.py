"""VPCs, as EC2 has them: what hangs on what."""

from .machines import Machines

TAGS = [{"Key": "k", "Value": "v"}]


def given(kind):
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": TAGS}]}


class Vpcs(Machines):
    def parts(self):
        vpc = self.ec2.create_vpc(CidrBlock="10.97.0.0/24", **given("vpc"))["Vpc"]["VpcId"]
        gateway = self.ec2.create_internet_gateway(**given("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.97.0.0/24", **given("subnet"))["Subnet"]["SubnetId"]
        table = self.ec2.create_route_table(VpcId=vpc, **given("route-table"))["RouteTable"]["RouteTableId"]
        group = self.ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc, **given("security-group"))["GroupId"]
        return vpc, gateway, subnet, table, group

    def test_parts_have_their_tags_and_are_found_by_them(self):
        vpc, gateway, subnet, table, group = self.parts()
        by_tag = {"Filters": [{"Name": "tag:k", "Values": ["v"]}]}
        self.assertEqual([one["VpcId"] for one in self.ec2.describe_vpcs(**by_tag)["Vpcs"]], [vpc])
        (found,) = self.ec2.describe_internet_gateways(**by_tag)["InternetGateways"]
        self.assertEqual((found["InternetGatewayId"], found["Attachments"][0]["VpcId"]), (gateway, vpc))
        (found,) = self.ec2.describe_subnets(**by_tag)["Subnets"]
        self.assertEqual((found["SubnetId"], found["MapPublicIpOnLaunch"], found["DefaultForAz"]), (subnet, False, False))
        (found,) = self.ec2.describe_route_tables(**by_tag)["RouteTables"]
        self.assertEqual((found["RouteTableId"], found["Associations"]), (table, []))
        (found,) = self.ec2.describe_security_groups(**by_tag)["SecurityGroups"]
        self.assertEqual((found["GroupId"], found["IpPermissionsEgress"][0]["IpProtocol"]), (group, "-1"))
        in_vpc = {"Filters": [{"Name": "vpc-id", "Values": [vpc]}]}
        # With those that came with it.
        self.assertEqual(len(self.ec2.describe_route_tables(**in_vpc)["RouteTables"]), 2)
        self.assertEqual(len(self.ec2.describe_security_groups(**in_vpc)["SecurityGroups"]), 2)
        self.refused("InvalidParameterValue", self.ec2.create_vpc, CidrBlock="10.98.0.0/24", **given("subnet"))

    def test_what_something_hangs_on_stays(self):
        vpc, gateway, subnet, table, group = self.parts()
        self.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        self.refused(
            "RouteAlreadyExists", self.ec2.create_route, RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
        )
        association = self.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
        self.refused("Resource.AlreadyAssociated", self.ec2.associate_route_table, RouteTableId=table, SubnetId=subnet)
        self.refused("Resource.AlreadyAssociated", self.ec2.attach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
        other = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.refused("InvalidParameterValue", self.ec2.attach_internet_gateway, InternetGatewayId=other, VpcId=vpc)
        eni = self.ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
        for call, named in (
            (self.ec2.delete_vpc, {"VpcId": vpc}),
            (self.ec2.delete_internet_gateway, {"InternetGatewayId": gateway}),
            (self.ec2.delete_subnet, {"SubnetId": subnet}),
            (self.ec2.delete_route_table, {"RouteTableId": table}),
            (self.ec2.delete_security_group, {"GroupId": group}),
        ):
            self.refused("DependencyViolation", call, **named)
        self.ec2.delete_network_interface(NetworkInterfaceId=eni)
        self.ec2.disassociate_route_table(AssociationId=association)
        self.ec2.delete_security_group(GroupId=group)
        self.ec2.delete_route_table(RouteTableId=table)
        self.ec2.delete_subnet(SubnetId=subnet)
        self.refused("DependencyViolation", self.ec2.delete_vpc, VpcId=vpc)
        self.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        self.refused("Gateway.NotAttached", self.ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
        self.ec2.delete_internet_gateway(InternetGatewayId=gateway)
        self.ec2.delete_vpc(VpcId=vpc)
        self.refused("InvalidVpcID.NotFound", self.ec2.delete_vpc, VpcId=vpc)

    def test_a_gateway_stays_while_an_instance_has_a_public_address(self):
        vpc, gateway, subnet, table, _ = self.parts()
        self.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        instance = self.launched(self.bare_image()["image"], SubnetId=subnet)["InstanceId"]
        (eni,) = self.ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NetworkInterfaces"]
        self.assertEqual((eni["Attachment"]["InstanceId"], eni["Status"]), (instance, "in-use"))
        self.refused("DependencyViolation", self.ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
        self.ec2.terminate_instances(InstanceIds=[instance])
        self.until_state(instance, "terminated")
        self.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)

    def test_what_was_just_made_is_not_known_yet_and_there_is_a_limit(self):
        self.post("settings", settings={"describe_not_found_seconds": 60, "vpcs": 2})
        vpc = self.ec2.create_vpc(CidrBlock="10.97.0.0/24")["Vpc"]["VpcId"]
        self.assertNotIn(vpc, [one["VpcId"] for one in self.ec2.describe_vpcs()["Vpcs"]])
        self.refused("InvalidVpcID.NotFound", self.ec2.create_subnet, VpcId=vpc, CidrBlock="10.97.0.0/24")
        self.post("tick", seconds=61)
        self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.97.0.0/24")
        # The default one is one of them.
        self.refused("VpcLimitExceeded", self.ec2.create_vpc, CidrBlock="10.98.0.0/24")
