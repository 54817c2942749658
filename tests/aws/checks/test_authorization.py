"""What IAM is asked about a call: every resource by itself, and what the call implies."""

from .server import REGION, Case, block

OF_EC2 = f"arn:aws:ec2:{REGION}:"


class Authorization(Case):
    def asked(self, call, **given):
        """{(action, resource): context} of one call."""
        self.post("asked")
        call(**given)
        return {(one["action"], one["resource"]): one["context"] for one in self.post("asked")}

    def tags(self, kind, **tags):
        return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def own_image(self, **tags):
        snapshot = self.made({0: block(1)}, Tags=[{"Key": "of", "Value": "base"}])
        return self.registered(snapshot, "base", TagSpecifications=[self.tags("image", **tags)]), snapshot

    def test_a_launch_is_asked_about_all_that_it_uses_and_makes(self):
        image, snapshot = self.own_image(family="web")
        iam = self.client("iam")
        role = iam.create_role(RoleName="baker", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        iam.create_instance_profile(InstanceProfileName="baker")
        iam.add_role_to_instance_profile(InstanceProfileName="baker", RoleName="baker")
        asked = self.asked(
            self.ec2.run_instances,
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.small",
            IamInstanceProfile={"Name": "baker"},
            InstanceMarketOptions={"MarketType": "spot"},
            TagSpecifications=[self.tags("instance", bake="1"), self.tags("volume", bake="2")],
        )
        run, own = "ec2:RunInstances", f"{OF_EC2}{self.account}:"
        self.assertEqual(asked[run, f"{OF_EC2}:image/{image}"], {"aws:ResourceTag/family": "web"})
        self.assertEqual(asked[run, f"{OF_EC2}:snapshot/{snapshot}"], {"aws:ResourceTag/of": "base"})
        for kind, value in (("instance", "1"), ("volume", "2")):
            context = {"aws:RequestTag/bake": value, "aws:TagKeys": ["bake"]}
            self.assertEqual(asked[run, f"{own}{kind}/*"], context)
            tagged = asked["ec2:CreateTags", f"{own}{kind}/*"]
            self.assertEqual(tagged, {**context, "ec2:CreateAction": "RunInstances"})
        # What is made without tags is asked about without them, and nobody tags it.
        for kind in ("network-interface", "spot-instances-request"):
            self.assertEqual(asked[run, f"{own}{kind}/*"], {})
            self.assertNotIn(("ec2:CreateTags", f"{own}{kind}/*"), asked)
        self.assertEqual(asked["iam:PassRole", role], {"iam:PassedToService": "ec2.amazonaws.com"})
        kinds = {resource.split(":")[5].split("/")[0] for action, resource in asked if action == run}
        self.assertLessEqual({"subnet", "security-group"}, kinds)

    def test_tags_are_those_before_the_call(self):
        image, _ = self.own_image(family="web")
        arn = f"{OF_EC2}:image/{image}"
        tag = {"Resources": [image], "Tags": [{"Key": "late", "Value": "1"}]}
        self.assertEqual(
            self.asked(self.ec2.create_tags, **tag)["ec2:CreateTags", arn],
            {"aws:ResourceTag/family": "web", "aws:RequestTag/late": "1", "aws:TagKeys": ["late"]},
        )
        had = {"aws:ResourceTag/family": "web", "aws:ResourceTag/late": "1"}
        tag["Tags"] = [{"Key": "late"}]
        self.assertEqual(
            self.asked(self.ec2.delete_tags, **tag)["ec2:DeleteTags", arn], {**had, "aws:TagKeys": ["late"]}
        )
        self.assertEqual(
            self.asked(self.ec2.deregister_image, ImageId=image), {("ec2:DeregisterImage", arn): {"aws:ResourceTag/family": "web"}}
        )

    def test_a_snapshots_key_is_used_through_the_service(self):
        kms = self.client("kms")
        key = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName="alias/bakery", TargetKeyId=key["KeyId"])
        asked = self.asked(self.ebs.start_snapshot, VolumeSize=1, Encrypted=True, KmsKeyArn=key["Arn"])
        self.assertEqual(asked["ebs:StartSnapshot", f"{OF_EC2}:snapshot/*"], {})
        used = {"kms:ResourceAliases": ["alias/bakery"], "kms:ViaService": f"ebs.{REGION}.amazonaws.com"}
        self.assertEqual(asked["kms:ReEncryptTo", key["Arn"]], used)
        self.assertEqual(asked["kms:CreateGrant", key["Arn"]], {**used, "kms:GrantIsForAWSResource": "true"})
        # AWS's own key needs nothing.
        asked = self.asked(self.ebs.start_snapshot, VolumeSize=1, Encrypted=True)
        self.assertEqual([action for action, _ in asked], ["ebs:StartSnapshot"])

    def test_each_account_is_asked_for_itself(self):
        other = self.client("ec2", self.other)
        self.post("asked")
        other.describe_images(Owners=["self"])
        self.assertEqual(self.post("asked"), [])
        self.assertEqual([one["action"] for one in self.post("asked", self.other)], ["ec2:DescribeImages"])
        self.client("sts").get_caller_identity()
        self.assertEqual(self.post("asked"), [])
